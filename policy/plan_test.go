package policy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPlanGolden plans each rule of testdata/plan/*.toml and of the shipped
// policies for the facts in the file's "# facts:" lines (JSON), or for a
// container of 256 MiB.
func TestPlanGolden(t *testing.T) {
	t.Parallel()
	names := slices.Concat(files(t, "testdata/plan/*.toml"), files(t, "../etc/policy.d/*.toml"), files(t, "../etc/examples/policy/*.toml"))
	for _, name := range names {
		t.Run(stem(name), func(t *testing.T) {
			t.Parallel()
			f := readFile(t, name)
			p, diags := Decode([]File{f})
			if p == nil {
				t.Fatalf("refused:\n%s", diags)
			}
			var b strings.Builder
			if len(diags) > 0 {
				fmt.Fprintf(&b, "%s\n\n", strings.ReplaceAll(diags.String(), filepath.Dir(name)+"/", ""))
			}
			for _, facts := range factsOf(t, f.Data) {
				for _, r := range p.Rules {
					writePlan(&b, r, facts)
				}
			}
			golden(t, filepath.Join("testdata/plan", stem(name)+".golden"), b.String())
		})
	}
}

// factsOf reads the "# facts:" lines.
func factsOf(t *testing.T, data []byte) []Facts {
	t.Helper()
	var out []Facts
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		text, ok := strings.CutPrefix(s.Text(), "# facts: ")
		if !ok {
			continue
		}
		var f Facts
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatalf("facts %s: %v", text, err)
		}
		out = append(out, f)
	}
	if out == nil {
		out = []Facts{{Limit: LimitOf(256 << 20)}}
	}
	return out
}

func writePlan(b *strings.Builder, r *Rule, f Facts) {
	if f.Trigger == "" {
		f.Trigger = r.Trigger.On
	}
	p := MakePlan(r, f)
	fmt.Fprintf(b, "%s on %s, limit %s, resumes %d, cooldown %t\n", r.Name, f.Trigger, f.Limit, f.Resumes, f.InCooldown)
	for _, l := range p.Lines() {
		b.WriteString(l + "\n")
	}
	fmt.Fprintf(b, "do %s, hold %t, at most %s, borrowed %d, granted %d\n\n", p.Do, p.Hold, p.MaxHold, p.Borrowed, p.Granted)
}

// TestPlanInvariants checks what every plan must keep, over many rules and facts.
func TestPlanInvariants(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Concat(files(t, "testdata/plan/*.toml"), files(t, "../etc/examples/policy/*.toml")) {
		p, _ := Decode([]File{readFile(t, name)})
		for _, r := range p.Rules {
			for _, limit := range []Limit{NoLimit, LimitOf(0), LimitOf(256 << 20), LimitOf(1<<63 - 1)} {
				for resumes := range 4 {
					for _, cooldown := range []bool{false, true} {
						f := Facts{Limit: limit, Resumes: resumes, InCooldown: cooldown, Trigger: r.Trigger.On}
						checkPlan(t, r, f, MakePlan(r, f))
					}
				}
			}
		}
	}
}

// checkPlan walks a plan as the engine would.
func checkPlan(t testing.TB, r *Rule, f Facts, p Plan) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Errorf("rule %s, facts %+v: %s\n%s", r.Name, f, fmt.Sprintf(format, args...), strings.Join(p.Lines(), "\n"))
	}
	if len(p.Steps) == 0 || p.Steps[0].Action != SnapshotAction {
		fail("the snapshot is not first")
		return
	}
	frozen, raised := false, false
	var ran []int
	for i, op := range p.Ops {
		switch op.Kind {
		case OpFreeze:
			if frozen {
				fail("op %d freezes what is frozen", i)
			}
			frozen = true
		case OpThaw:
			if !frozen {
				fail("op %d thaws what runs", i)
			}
			frozen = false
		case OpRaise:
			if raised || op.Bytes == 0 {
				fail("op %d raises twice, or by nothing", i)
			}
			raised = true
		case OpRestore:
			if !raised || frozen != p.Hold {
				fail("op %d restores what is not raised, or before the freeze", i)
			}
			raised = false
		case OpStep:
			ran = append(ran, op.Step)
			needs := p.Steps[op.Step].Options.Needs()
			if needs == Frozen && !frozen || needs == Running && frozen {
				fail("step %s needs %s", p.Steps[op.Step].Name, needs)
			}
		}
	}
	if frozen != p.Hold || raised {
		fail("ends frozen %t, raised %t", frozen, raised)
	}
	if len(ran) != len(p.Steps) || !slices.IsSorted(ran) {
		fail("runs the steps %v of %d", ran, len(p.Steps))
	}
	checkDecision(fail, r, f, p)
}

func checkDecision(fail func(string, ...any), r *Rule, f Facts, p Plan) {
	if f.InCooldown && len(p.Steps) != 1 {
		fail("has steps within the cooldown")
	}
	if f.Resumes >= r.Verdict.Resumes && (p.Do == Resume || p.Verdict.Otherwise == Resume && p.Do != Resume) {
		fail("resumes once too often")
	}
	if (p.Do != r.Verdict.Do) != (p.Why != "") {
		fail("does %s where the rule says %s, because of %q", p.Do, r.Verdict.Do, p.Why)
	}
	if p.Do == Hold && p.MaxHold < r.Verdict.HoldFor {
		fail("max hold %s is less than hold-for", p.MaxHold)
	}
	if p.MaxHold < 0 || p.MaxHold > r.Verdict.Deadline+r.Verdict.HoldFor+time.Minute {
		fail("max hold %s", p.MaxHold)
	}
}
