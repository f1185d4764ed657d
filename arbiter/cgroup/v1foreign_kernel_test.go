package cgroup_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// TestKernelV1TwoDaemons has a second daemon and a release meet a live owner.
func TestKernelV1TwoDaemons(t *testing.T) {
	needV1(t)
	pod := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	ctr := pod.Child("ctr", testkit.Options{Limit: 48 * mib})
	owner, second := newGuard(t), newGuard(t)
	c := owner.arm(ctr)
	leak := ctr.Start(testkit.Load{Kind: testkit.Anon})
	owner.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	must(t, c.Borrow(t.Context(), 8*mib))
	before := []string{pod.Record(), ctr.Record()}

	other, err := second.Get(ctr.Path)
	must(t, err)
	if _, err := other.Arm(t.Context(), cgroup.ArmOptions{Hold: true}); !errors.Is(err, cgroup.ErrLocked) {
		t.Errorf("second daemon: %v, want ErrLocked", err)
	}
	report, err := second.Release(t.Context(), cgroup.ReleaseOptions{Path: ctr.Path})
	must(t, err)
	if !slices.Equal(report.Skipped, []string{pod.Path, ctr.Path}) || len(report.Released) != 0 {
		t.Errorf("release: %+v", report)
	}
	if !slices.Equal(before, []string{pod.Record(), ctr.Record()}) || !ctr.Frozen() || ctr.Limit() != 56*mib || !flag(ctr) || !flag(pod) {
		t.Errorf("the second daemon changed something: records %q, then %q and %q; frozen %v, limit %d, flags %v %v",
			before, pod.Record(), ctr.Record(), ctr.Frozen(), ctr.Limit(), flag(ctr), flag(pod))
	}
	report, err = second.Release(t.Context(), cgroup.ReleaseOptions{Path: ctr.Path, Force: true})
	must(t, err)
	if len(report.Released) != 2 || ctr.Frozen() || flag(ctr) || ctr.Limit() != 48*mib {
		t.Errorf("forced release: %+v", report)
	}
	leak.Await()
}

// TestKernelV1ForeignLimit writes limits behind the guard's back.
func TestKernelV1ForeignLimit(t *testing.T) {
	needV1(t)
	group := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	g := newGuard(t)
	c := g.arm(group)
	group.Start(testkit.Load{Kind: testkit.Anon})
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	must(t, c.Borrow(t.Context(), 8*mib))
	group.SetLimit(96 * mib)
	g.await(cgroup.EventLimitChanged, c)
	u, err := c.Usage()
	must(t, err)
	if base, _ := u.BaseLimit.Bytes(); base != 96*mib {
		t.Errorf("base limit %d", base)
	}
	must(t, c.Borrow(t.Context(), 8*mib))
	if got := group.Limit(); got != 104*mib {
		t.Errorf("limit %d after a raise of the new limit", got)
	}
	g.forget()
	must(t, c.Restore(t.Context()))
	must(t, c.Thaw(t.Context()))
	g.await(cgroup.EventLimit, c)
	must(t, c.Kill(t.Context()))
	must(t, c.Disarm(t.Context()))
	if got := group.Limit(); got != 96*mib {
		t.Errorf("limit %d in the end, want the foreign one", got)
	}
}

// TestKernelV1ForeignLimitAfterCrash writes a limit between the daemon's death
// and the release.
func TestKernelV1ForeignLimitAfterCrash(t *testing.T) {
	needV1(t)
	s := crashAt(t, 12, testkit.Options{})
	if !s.killed {
		t.Fatal("the daemon was not killed")
	}
	s.ctr.SetLimit(64 * mib)
	g := newGuard(t)
	_, err := g.Release(t.Context(), cgroup.ReleaseOptions{Path: s.ctr.Path})
	must(t, err)
	if s.ctr.Limit() != 64*mib || s.ctr.Record() != "" || flag(s.ctr) || s.ctr.Frozen() {
		t.Errorf("after %s: limit %d, record %q", s.stages[len(s.stages)-1], s.ctr.Limit(), s.ctr.Record())
	}
}

// TestKernelV1ForeignFreezer pauses and resumes as a container runtime does.
func TestKernelV1ForeignFreezer(t *testing.T) {
	needV1(t)
	write := func(group *testkit.Group, state string) {
		t.Helper()
		f, err := os.OpenFile(group.FreezerDir()+"/freezer.state", os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteString(state)
		must(t, err)
	}
	group := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	group.Start(testkit.Load{Kind: testkit.Sleep})
	g := newGuard(t)
	c := g.arm(group)

	write(group, "FROZEN") // paused before
	g.await(cgroup.EventFreezerChanged, c)
	must(t, c.Freeze(t.Context()))
	must(t, c.Thaw(t.Context()))
	if !group.Frozen() {
		t.Error("our thaw undid a foreign freeze")
	}
	write(group, "THAWED")
	g.await(cgroup.EventFreezerChanged, c)

	must(t, c.Freeze(t.Context())) // paused while held
	g.no(cgroup.EventFreezerChanged)
	write(group, "FROZEN")
	g.await(cgroup.EventFreezerChanged, c)
	must(t, c.Thaw(t.Context()))
	if !group.Frozen() {
		t.Error("our thaw undid a foreign freeze that came during the hold")
	}
	write(group, "THAWED")
	g.await(cgroup.EventFreezerChanged, c)

	must(t, c.Freeze(t.Context())) // resumed while held
	write(group, "THAWED")
	g.await(cgroup.EventFreezerChanged, c)
	if st := c.Status(); st.State == cgroup.HeldNow {
		t.Errorf("status %+v after a foreign thaw", st)
	}
	must(t, c.Disarm(t.Context()))
	if group.Frozen() || group.Record() != "" {
		t.Error("not undone")
	}
}
