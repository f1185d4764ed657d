package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// rule is a policy for one group: the usual rule with what the test adds.
func rule(g *testkit.Group, steps, verdict string) string {
	return fmt.Sprintf(`[[rule]]
name = "test"
[rule.match]
cgroup = [%q]
[rule.trigger]
on = "limit"
cooldown = "0s"
%s
[rule.verdict]
%s
`, g.Path, steps, verdict)
}

// wait is a step that lasts.
const wait = `[[rule.step]]
action = "wait"
for = "1m"
timeout = "90s"
`

// shortWait is one that ends by itself, but lasts long enough to be looked at.
const shortWait = `[[rule.step]]
action = "wait"
for = "5s"
`

func group(t *testing.T, limit uint64) *testkit.Group {
	t.Helper()
	testkit.Need(t, testkit.Memory)
	return testkit.Tree(t, testkit.Options{Limit: limit})
}

// standsStill fails if the process touches a page or the kernel kills.
func standsStill(t *testing.T, g *testkit.Group, l *leak) {
	t.Helper()
	before := l.report().Pages
	time.Sleep(300 * time.Millisecond)
	if after := l.report().Pages; after != before {
		t.Errorf("%d pages were touched during the hold", after-before)
	}
	if n := g.Kills(); n != 0 {
		t.Errorf("oom_kill is %d", n)
	}
	if l.ended() {
		t.Error("the process is gone")
	}
}

// killedByKernel reports whether the kernel killed on its own before the end of
// a case that closed with a kill. On version 2 the kernel carries the verdict
// out too, and counts that: its count tells nothing.
func killedByKernel(g *testkit.Group) bool { return g.Version() == 1 && g.Kills() != 0 }

// asBefore fails if anything of ours is left on the group.
func asBefore(t *testing.T, g *testkit.Group, limit uint64) {
	t.Helper()
	testkit.Eventually(t, "the undo record is gone", func() bool { return g.Record() == "" })
	if got := g.Limit(); got != limit {
		t.Errorf("the limit is %d, was %d", got, limit)
	}
	if g.Frozen() {
		t.Error("the group is frozen")
	}
	if g.Version() == 1 && g.Key("memory.oom_control", "oom_kill_disable") != 0 {
		t.Error("the kernel's killer is off")
	}
	if g.Version() == 2 {
		if v := g.Read("memory.high"); v != "max" {
			t.Errorf("memory.high is %s", v)
		}
	}
}

// The whole story: held at the limit, resumed with more room, held again at
// the raised limit, killed.
func TestKernelResumeThenKill(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, shortWait, `
do = "resume"
raise = "50%"
resumes = 1
otherwise = "kill"`)})
	l := r.leak(g, "--rate", "200MiB/s", "--verify")

	first := r.awaitHold(g.Path, "wait")
	standsStill(t, g, l)
	if first.Container != "" || first.Rule != "test" || first.Trigger != "limit" || first.Then != "kill" || first.LimitBytes != 64*mib {
		t.Errorf("held as %+v", first)
	}
	if got := g.Limit(); got != 64*mib {
		t.Errorf("the limit is %d while held", got)
	}
	testkit.Eventually(t, "it is resumed with more room", func() bool { return g.Limit() == 96*mib })

	testkit.Eventually(t, "it is held again", func() bool {
		hs := r.holds()
		return len(hs) == 1 && hs[0].ID != first.ID && hs[0].Step == "wait"
	})
	standsStill(t, g, l)
	if p := l.report(); p.Mismatches != 0 || p.Checked == 0 {
		t.Errorf("of %d pages compared %d were wrong", p.Checked, p.Mismatches)
	}
	if got, most := g.Usage(), uint64(96*mib); got > most {
		t.Errorf("usage is %d, over the raised limit", got)
	}
	rec := r.awaitClosed(g.Path, 2)
	if rec.Outcome != casebook.OutcomeKill || !strings.Contains(rec.Why, "1 of 1 resumes used") {
		t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
	}
	l.awaitEnd()
	if pids := g.Pids(); len(pids) != 0 {
		t.Errorf("left: %v", pids)
	}
	testkit.Eventually(t, "the memory is back", func() bool { return g.Usage() < 2*mib })
	if st := decode[api.Status](t, r.must("status", "-o", "json")); st.BorrowedBytes != 0 || st.Held != 0 {
		t.Errorf("after the kill %d bytes are lent, %d containers held", st.BorrowedBytes, st.Held)
	}
	r.stop()
	asBefore(t, g, 64*mib)
}

// What a resume granted is taken back once usage fits, and not before.
func TestKernelRaiseIsLoweredWhenUsageFits(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, "", `
do = "resume"
raise = "50%"
raise-for = "1s"
resumes = 3
otherwise = "kill"`)})
	l := r.leak(g, "--ceiling", "80MiB", "--free", "--rounds", "1", "--hold", "3s", "--rate", "200MiB/s")
	testkit.Eventually(t, "it is resumed with more room", func() bool { return g.Limit() == 96*mib })
	l.awaitEnd()
	if n := g.Kills(); n != 0 {
		t.Errorf("oom_kill is %d", n)
	}
	testkit.Eventually(t, "the limit is lowered again", func() bool { return g.Limit() == 64*mib })
}

// A step that needs the container running gets room, runs it, and stops it.
func TestKernelRunningStepBorrows(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, `
[[rule.step]]
action = "raise"
by = "25%"
`+shortWait, `do = "kill"`)})
	r.leak(g, "--rate", "200MiB/s")
	h := r.awaitHold(g.Path, "wait")
	if got := g.Limit(); got != 80*mib {
		t.Errorf("the limit is %d after the raise", got)
	}
	rec := r.awaitClosed(g.Path, 1)
	if rec.ID != h.ID || rec.Outcome != casebook.OutcomeKill {
		t.Errorf("closed as %s: %s", rec.Outcome, rec.Why)
	}
	testkit.Eventually(t, "the limit is back", func() bool { return g.Limit() == 64*mib })
}

// An operator's words: extend, resume, kill, pause, disarm.
func TestKernelOperator(t *testing.T) {
	g := group(t, 64*mib)
	r := start(t, settings{groups: []*testkit.Group{g}, policy: rule(g, "", `
do = "hold"
hold-for = "2m"
otherwise = "kill"`)})
	l := r.leak(g, "--rate", "200MiB/s")
	testkit.Eventually(t, "it waits for an operator", func() bool {
		hs := r.holds()
		return len(hs) == 1 && hs[0].State == "waiting"
	})
	h := r.holds()[0]
	r.must("extend", h.ID, "10m")
	if d := r.holds()[0].Deadline.Sub(h.Deadline); d != 10*time.Minute {
		t.Errorf("extended by %s", d)
	}
	if _, _, code := r.ctl("resume", "no-such-case"); code != 1 {
		t.Errorf("resume of no case: exit %d", code)
	}
	out := r.must("resume", h.ID[len(h.ID)-4:], "--raise", "50%")
	if !strings.Contains(out, h.ID) {
		t.Errorf("resume says %q", out)
	}
	if got := g.Limit(); got != 96*mib {
		t.Errorf("the limit is %d after the resume", got)
	}
	testkit.Eventually(t, "it is held again", func() bool {
		hs := r.holds()
		return len(hs) == 1 && hs[0].ID != h.ID && hs[0].State == "waiting"
	})
	r.must("kill", r.holds()[0].ID)
	l.awaitEnd()
	if rec := r.cases(g.Path)[0]; rec.Outcome != casebook.OutcomeKill || rec.Operator != "uid 0" {
		t.Errorf("closed as %s by %q", rec.Outcome, rec.Operator)
	}

	l = r.leak(g, "--ceiling", "20MiB")
	testkit.Eventually(t, "it has its memory", func() bool { return l.report().Pages >= 20*mib/4096 })
	r.must("pause", g.Path)
	if !g.Frozen() {
		t.Error("paused and not frozen")
	}
	r.must("disarm", g.Path)
	if g.Frozen() || g.Record() != "" {
		t.Errorf("disarmed: frozen %v, record %q", g.Frozen(), g.Record())
	}
	if l.ended() {
		t.Error("disarming killed")
	}
	if st := r.must("status"); !strings.Contains(st, g.Path) {
		t.Errorf("status does not name what is disarmed:\n%s", st)
	}
	r.must("reload")
	r.awaitGuard(g.Path, "armed")
}
