package integration

import (
	"regexp"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/etc/examples"
	"github.com/arbiterd/arbiter/policy"
	"github.com/arbiterd/arbiter/tests/jvmkit"
	"github.com/arbiterd/arbiter/tests/testkit"
)

var matchTable = regexp.MustCompile(`(?s)\[rule\.match\]\n.*?\n\n`)

// example is a shipped example policy for one group: what it does stays as
// shipped, whom it is for becomes the group.
func example(t *testing.T, name string, g *testkit.Group) string {
	t.Helper()
	data, err := examples.Policies.ReadFile("policy/" + name)
	if err != nil {
		t.Fatal(err)
	}
	match := "[rule.match]\ncgroup = [\"" + g.Path + "\"]\n\n"
	text := matchTable.ReplaceAllString(string(data), match)
	if !strings.Contains(text, match) {
		t.Fatalf("%s has no [rule.match]", name)
	}
	return text
}

// allOK fails unless every step went well.
func allOK(t *testing.T, rec casebook.Record) {
	t.Helper()
	for _, s := range rec.Steps {
		if s.Result != "ok" {
			t.Errorf("step %s: %s %s %s", s.Name, s.Result, s.Error, s.Why)
		}
	}
}

// The example for native services: a core of the standing process, then a kill.
func TestKernelExampleNativeCore(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: example(t, "50-native-core.toml", g)})
	l := r.leak(g, "--rate", "200MiB/s")
	l.awaitEnd()
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeKill || killedByKernel(g) {
		t.Errorf("closed as %s: %s; oom_kill %d", rec.Outcome, rec.Why, g.Kills())
	}
	allOK(t, rec)
	found := false
	for _, a := range rec.Artifacts {
		found = found || a.Step == "core-dump" && a.Size > 0 && !a.Partial
	}
	if !found {
		t.Errorf("no core among %+v", rec.Artifacts)
	}
}

// The second chance: half as much room again, then a kill with notice.
func TestKernelExampleRaiseOnce(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: example(t, "30-raise-once-then-kill.toml", g)})
	l := r.leak(g, "--rate", "100MiB/s")
	testkit.Eventually(t, "it is resumed with more room", func() bool { return g.Limit() == 96*mib })
	l.awaitEnd()
	rec := r.awaitClosed(g.Path, 2)
	if rec.Outcome != casebook.OutcomeKill || !strings.Contains(rec.Why, "1 of 1 resumes used") {
		t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
	}
	if first := r.cases(g.Path)[1]; first.Outcome != casebook.OutcomeResume || first.RaisedBytes != 32*mib {
		t.Errorf("first closed as %s with %d bytes: %s", first.Outcome, first.RaisedBytes, first.Why)
	}
	if killedByKernel(g) {
		t.Errorf("oom_kill is %d", g.Kills())
	}
}

// Batch jobs: warned early, beside the job, then resumed four times.
func TestKernelExampleBatch(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: example(t, "20-batch-resume.toml", g)})
	l := r.leak(g, "--rate", "20MiB/s", "--ceiling", "104MiB", "--verify")
	testkit.Eventually(t, "it was resumed three times", func() bool { return g.Limit() == 112*mib })
	testkit.Eventually(t, "it has all that it wants", func() bool { return l.report().Pages*4096 >= 104*mib })
	if p := l.report(); p.Mismatches != 0 {
		t.Errorf("of %d pages compared %d were wrong", p.Checked, p.Mismatches)
	}
	resumed, early := 0, 0
	for _, rec := range r.cases(g.Path) {
		switch {
		case rec.Rule == "batch-resume" && rec.Outcome == casebook.OutcomeResume:
			resumed++
		case rec.Rule == "batch-early" && rec.Outcome == casebook.OutcomeNone:
			early++
			allOK(t, rec)
		case !rec.Closed.IsZero():
			t.Errorf("%s closed as %s: %s", rec.Rule, rec.Outcome, rec.Why)
		}
	}
	if resumed != 3 || early > 1 {
		t.Errorf("%d resumes, %d early cases", resumed, early)
	}
	if n := g.Kills(); n != 0 || l.ended() {
		t.Errorf("oom_kill is %d, ended %t", n, l.ended())
	}
}

// Hold for an operator, who resumes it.
func TestKernelExampleHold(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: example(t, "10-hold-for-operator.toml", g)})
	l := r.leak(g, "--rate", "200MiB/s", "--ceiling", "70MiB", "--verify")
	testkit.Eventually(t, "it waits for an operator", func() bool {
		hs := r.holds()
		return len(hs) == 1 && hs[0].State == "waiting"
	})
	standsStill(t, g, l)
	h := r.holds()[0]
	if h.Then != string(policy.Kill) || h.Deadline.Sub(h.HeldSince).Minutes() < 14 {
		t.Errorf("held as %+v", h)
	}
	r.must("resume", h.ID)
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeResume || rec.Operator == "" || g.Limit() != 80*mib {
		t.Errorf("closed as %s by %q, limit %d: %s", rec.Outcome, rec.Operator, g.Limit(), rec.Why)
	}
	allOK(t, rec)
	testkit.Eventually(t, "it goes on", func() bool { return l.report().Pages*4096 >= 70*mib })
	if p := l.report(); p.Mismatches != 0 {
		t.Errorf("of %d pages compared %d were wrong", p.Checked, p.Mismatches)
	}
}

// Observe all: the kernel decides as ever, and the case says what would have
// been done.
func TestKernelExampleObserve(t *testing.T) {
	g := group(t, 64*mib)
	r := newRig(t, settings{groups: []*testkit.Group{g}, policy: example(t, "90-observe-all.toml", g)})
	r.run("supervise")
	r.awaitGuard(g.Path, "watched")
	l := r.leak(g, "--rate", "100MiB/s")
	l.awaitEnd()
	if n := g.Kills(); n == 0 {
		t.Error("the kernel did not kill")
	}
	rec := r.awaitClosed(g.Path, 1)
	if rec.Mode != policy.Observe || rec.Outcome != casebook.OutcomeNone || len(rec.Plan) < 4 || len(rec.Artifacts) != 0 {
		t.Errorf("recorded %s, %s, plan %q, artifacts %v", rec.Mode, rec.Outcome, rec.Plan, rec.Artifacts)
	}
}

// A JVM on the way down: threads, histogram and heap, then a kill. The core is
// for a heap dump that fails.
func TestKernelExampleJVM(t *testing.T) {
	home := jvmkit.JDK(t)
	g := group(t, 256*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: example(t, "40-jvm-heap.toml", g)})
	jvmkit.LeakerAtOnce(t, home, jvmkit.Options{Place: g.Place}, []string{"-Xmx1g", "-XX:+UseSerialGC"}, "50", "50")
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeKill || killedByKernel(g) || rec.Facts.Runtime != "jvm" {
		t.Errorf("closed as %s: %s; runtime %s, oom_kill %d", rec.Outcome, rec.Why, rec.Facts.Runtime, g.Kills())
	}
	for _, s := range rec.Steps {
		want := "ok"
		if s.Name == "core-dump" {
			want = "skipped"
		}
		if s.Result != want {
			t.Errorf("step %s: %s %s %s", s.Name, s.Result, s.Error, s.Why)
		}
		t.Logf("%s: %s in %s: %s", s.Name, s.Result, s.Elapsed, s.Summary)
	}
	testkit.Eventually(t, "nobody is left", func() bool { return len(g.Pids()) == 0 })
}
