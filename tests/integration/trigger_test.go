package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// triggered is a rule with a trigger of its own.
func triggered(g *testkit.Group, name, trigger, steps, verdict string) string {
	return fmt.Sprintf(`[[rule]]
name = %q
[rule.match]
cgroup = [%q]
[rule.trigger]
%s
%s
[rule.verdict]
%s
`, name, g.Path, trigger, steps, verdict)
}

const note = "[[rule.step]]\naction = \"log\"\nmessage = \"seen\"\n"

// await starts a rig for a policy without a limit rule, and waits until the
// group is known to it.
func watch(t *testing.T, g *testkit.Group, policy string) *rig {
	t.Helper()
	r := newRig(t, settings{groups: []*testkit.Group{g}, policy: policy})
	r.run("supervise")
	testkit.Eventually(t, "the group is matched", func() bool { _, ok := r.guard(g.Path); return ok })
	return r
}

// A usage rule runs its steps beside the container, which runs on.
func TestKernelUsageTrigger(t *testing.T) {
	g := group(t, 64*mib)
	r := watch(t, g, triggered(g, "usage", `on = "usage"
at = "80%"`, note, `do = "none"`))
	l := r.leak(g, "--ceiling", "56MiB", "--rate", "50MiB/s")
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeNone || rec.Rule != "usage" || !strings.Contains(rec.Facts.Why, "80%") {
		t.Errorf("case of rule %s closed as %s; trigger: %s", rec.Rule, rec.Outcome, rec.Facts.Why)
	}
	if !rec.HeldAt.IsZero() {
		t.Error("it was held")
	}
	testkit.Eventually(t, "it runs on to its ceiling", func() bool { return l.report().Pages >= 56*mib/4096 })
	if n := len(r.cases(g.Path)); n != 1 {
		t.Errorf("%d cases within the cooldown", n)
	}
}

// A growth rule fires before the limit is there, and may hold.
func TestKernelGrowthTrigger(t *testing.T) {
	g := group(t, 256*mib)
	r := watch(t, g, triggered(g, "growth", `on = "growth"
limit-within = "5s"
hold = true`, note, `do = "kill"`))
	l := r.leak(g, "--rate", "25MiB/s")
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeKill || rec.HeldAt.IsZero() {
		t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
	}
	if used := rec.Facts.UnreclaimableBytes; used >= 256*mib {
		t.Errorf("it fired only at %d bytes", used)
	}
	l.awaitEnd()
	if killedByKernel(g) {
		t.Errorf("oom_kill is %d", g.Kills())
	}
}

// A case beside its container that meets the limit holds it, and goes on by
// the rule for the limit.
func TestKernelEscalates(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: triggered(g, "early", `on = "usage"
at = "30%"`, note+wait, `do = "none"`) + rule(g, shortWait, `do = "kill"`)})
	l := r.leak(g, "--rate", "5MiB/s")
	h := r.awaitHold(g.Path, "")
	standsStill(t, g, l)
	rec := r.awaitClosed(g.Path, 1)
	if rec.ID != h.ID || rec.Rule != "test" || rec.Outcome != casebook.OutcomeKill || rec.Facts.Trigger != "limit" {
		t.Errorf("case %s of rule %s, trigger %s, closed as %s: %s", rec.ID, rec.Rule, rec.Facts.Trigger, rec.Outcome, rec.Why)
	}
	var steps []string
	for _, s := range rec.Steps {
		steps = append(steps, s.Name+":"+s.Result)
	}
	want := "snapshot:ok log:ok wait:preempted snapshot:skipped wait:ok"
	if got := strings.Join(steps, " "); got != want {
		t.Errorf("steps %s, want %s", got, want)
	}
	testkit.Eventually(t, "the memory curve is kept", func() bool {
		out, _, code := r.ctl("get", rec.ID, "memory-curve.csv", "--to", "-")
		return code == 0 && strings.Count(out, "\n") > 2
	})
	l.awaitEnd()
}

// PSI of the cgroup over its mark opens a case; pressure alone holds nothing.
func TestKernelPressureTrigger(t *testing.T) {
	testkit.Need(t, testkit.V2Memory)
	g := group(t, 64*mib)
	r := watch(t, g, triggered(g, "pressure", `on = "pressure"
some = "10%"
over = "2s"`, note, `do = "none"`))
	r.leak(g, "--kind", "cache", "--dir", t.TempDir(), "--ceiling", "512MiB", "--threads", "4", "--free")
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeNone || rec.Facts.Trigger != "pressure" {
		t.Errorf("trigger %s closed as %s: %s", rec.Facts.Trigger, rec.Outcome, rec.Why)
	}
}

// available is the node's MemAvailable in MiB.
func available(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	var kb int
	_, after, _ := strings.Cut(string(b), "MemAvailable:")
	if _, err := fmt.Sscanf(after, "%d kB", &kb); err != nil {
		t.Fatal(err)
	}
	return kb / 1024
}

// On a node that is short of memory no case opens.
func TestKernelNodeRailKeepsCasesShut(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, wait, `do = "kill"`),
		config: fmt.Sprintf("[node]\nmin-available = \"%dMiB\"\n", 2*available(t))})
	testkit.Eventually(t, "the rail is shut", func() bool { return strings.Contains(r.must("status"), "min-available") })
	l := r.leak(g, "--rate", "200MiB/s")
	l.awaitEnd()
	if g.Version() == 2 {
		return // its guard is down as well: the kernel has decided before there was a case
	}
	rec := r.awaitClosed(g.Path, 1)
	if rec.Outcome != casebook.OutcomeKernel || !strings.Contains(rec.Why, "min-available") {
		t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
	}
}

// When the node runs short, what was lent is taken back: the kernel decides.
func TestKernelNodeRailTakesBack(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g},
		policy: rule(g, "[[rule.step]]\naction = \"raise\"\nby = \"25%\"\n"+wait, `do = "kill"`),
		config: fmt.Sprintf("[node]\nmin-available = \"%dMiB\"\n", available(t)-700)})
	l := r.leak(g, "--rate", "200MiB/s")
	h := r.awaitHold(g.Path, "wait")
	hog := r.leak(testkit.Tree(t, testkit.Options{}), "--ceiling", "1GiB")
	rec := r.awaitClosed(g.Path, 1)
	if rec.ID != h.ID || rec.Outcome != casebook.OutcomeKernel || !strings.Contains(rec.Why, "min-available") {
		t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
	}
	l.awaitEnd()
	if hog.ended() {
		t.Error("a bystander was killed")
	}
	if got := g.Limit(); got != 64*mib {
		t.Errorf("the limit is %d", got)
	}
}
