package policy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/arbiterd/arbiter/cri"
)

// seeds are all policies that this repository has.
func seeds(f *testing.F) {
	f.Helper()
	t := &testing.T{}
	for _, pattern := range []string{
		"testdata/plan/*.toml", "testdata/lint/*.toml", "testdata/lintenv/*.toml", "testdata/explain/*.toml",
		"../etc/policy.d/*.toml", "../etc/examples/policy/*.toml",
	} {
		for _, name := range files(t, pattern) {
			f.Add(readFile(t, name).Data)
		}
	}
}

// FuzzDecode: a policy or errors, each with a place in the file; the same
// whatever it is asked by; and no panic in what follows.
func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		file := File{Name: "f.toml", Data: data}
		p, diags := Decode([]File{file})
		if (p == nil) != diags.HasErrors() {
			t.Fatalf("policy %v with\n%s", p, diags)
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, d := range diags {
			if d.Pos.File != "f.toml" || d.Pos.Line < 1 || d.Pos.Line > lines || d.Pos.Column < 1 || d.Message == "" {
				t.Errorf("no place in %d lines: %+v", lines, d)
			}
		}
		again, diagsAgain := Decode([]File{file})
		if (p == nil) != (again == nil) || diags.String() != diagsAgain.String() {
			t.Errorf("decoded twice:\n%s\n%s", diags, diagsAgain)
		}
		if p != nil {
			Lint(p, Env{NodeBytes: 1 << 30, BorrowBudgetBytes: 1 << 20, Uploads: []string{"x"}})
		}
	})
}

// FuzzMatch: For, ByTrigger and Pick agree with Match; what lint calls
// unreachable never wins; a miss is told for every rule that does not match.
func FuzzMatch(f *testing.F) {
	for _, text := range []string{
		rules("a|enforce|namespace=['x*']|", "b|off|runtime=['jvm']|", "c|enforce|all=true|on='usage',at='90%'"),
		rules("a|enforce|cgroup=['/k/**']|", "b|observe|labels={t='p*'}|", "c|enforce|all=true,not={namespace=['x']}|"),
	} {
		f.Add(text, "xy", "pod", "c", "/k/a/b", "p1", uint64(1<<28))
	}
	f.Fuzz(func(t *testing.T, text, ns, pod, name, cgroup, label string, limit uint64) {
		p, diags := Decode([]File{{Name: "f.toml", Data: []byte(text)}})
		if p == nil || len(p.Rules) > 50 || len(cgroup) > 4096 {
			return
		}
		dead := map[string]bool{}
		for _, d := range diags {
			if strings.HasPrefix(d.Message, "can never") {
				dead[d.Rule] = true
			}
		}
		c := cri.Container{Name: name, Image: name, Cgroup: cgroup, Pod: cri.Pod{
			Namespace: ns, Name: pod, QoS: "burstable",
			Labels: map[string]string{"t": label}, Annotations: map[string]string{"t": label},
		}}
		for _, l := range []Limit{NoLimit, LimitOf(limit)} {
			for _, runtime := range []string{"", "jvm", "native"} {
				checkChoice(t, p, c, l, runtime, dead)
				Explain(p, c, Facts{Limit: l, Runtime: runtime})
			}
		}
	})
}

func checkChoice(t *testing.T, p *Policy, c cri.Container, limit Limit, runtime string, dead map[string]bool) {
	candidates := p.For(c, limit)
	for _, list := range ByTrigger(candidates) {
		picked := Pick(list, runtime)
		if picked == nil {
			continue
		}
		if dead[picked.Name] && runtime != "" {
			t.Errorf("%s is called unreachable and wins", picked.Name)
		}
		i := slices.IndexFunc(list, func(r *Rule) bool { return r.Mode != Off })
		rule, misses := p.Match(c, limit, runtime, list[i].Trigger.On)
		if rule == nil {
			t.Errorf("Pick says %s, Match none", picked.Name)
		}
		for _, m := range misses {
			if m.Rule == rule || m.Key == "" || m.Want == "" {
				t.Errorf("miss %+v of the winner %s", m, rule.Name)
			}
		}
	}
}

// FuzzPlan: every plan of every rule keeps the invariants, and facts survive
// their way through case.json.
func FuzzPlan(f *testing.F) {
	t := &testing.T{}
	for _, name := range files(t, "testdata/plan/*.toml") {
		f.Add(readFile(t, name).Data, uint64(1<<28), 2, false, uint64(1<<20), "limit")
	}
	f.Fuzz(func(t *testing.T, data []byte, limit uint64, resumes int, cooldown bool, lend uint64, kind string) {
		p, _ := Decode([]File{{Name: "f.toml", Data: data}})
		if p == nil {
			return
		}
		for _, r := range p.Rules {
			facts := Facts{
				Limit: LimitOf(limit), Resumes: resumes, InCooldown: cooldown, Trigger: r.Trigger.On,
				BorrowableBytes: LimitOf(lend), Container: cri.Container{Cgroup: "/x"}, Runtime: "jvm",
			}
			if r.Trigger.Cooldown == 0 {
				facts.InCooldown = false
			}
			plan := MakePlan(r, facts)
			checkPlan(t, r, facts, plan)
			if diff := DiffPlans(plan.Lines(), MakePlan(r, facts).Lines()); diff != "" {
				t.Errorf("planned twice:\n%s", diff)
			}
			facts.Trigger = TriggerKind(strings.ToValidUTF8(kind, ""))
			MakePlan(r, facts).Lines()
			Replay(p, facts).Lines()
			text, err := json.Marshal(facts)
			var back Facts
			if err != nil || json.Unmarshal(text, &back) != nil {
				t.Fatalf("facts %+v: %v", facts, err)
			}
			if diff := cmp.Diff(facts, back, cmp.AllowUnexported(Limit{})); diff != "" {
				t.Errorf("facts come back different:\n%s", diff)
			}
		}
	})
}
