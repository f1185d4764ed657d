package cgroup_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

func TestKernelV2HoldRaiseKill(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	group := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
	child := group.Start(testkit.Load{Kind: testkit.Anon})
	g := newGuard(t)
	c := g.arm(group)
	e := g.await(cgroup.EventLimit, c)
	t.Logf("%s: %s", e.Level, e.Why)
	must(t, c.Freeze(t.Context()))
	if !group.Frozen() || c.Status().State != cgroup.HeldNow {
		t.Errorf("frozen %v, state %s", group.Frozen(), c.Status().State)
	}
	if got := score(t, child.Pid); got != 0 {
		t.Errorf("oom_score_adj %d while held", got)
	}
	before := child.Pages()
	must(t, c.Borrow(t.Context(), 32*mib))
	if got := group.Limit(); got != 160*mib {
		t.Errorf("limit %d after a raise", got)
	}
	g.forget()
	must(t, c.Thaw(t.Context()))
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	if child.Pages() == before {
		t.Error("nothing ran after the thaw")
	}
	if n := group.Kills(); n != 0 {
		t.Errorf("the kernel killed %d", n)
	}
	must(t, c.Kill(t.Context()))
	child.Await()
	if n := group.Kills(); n == 0 {
		t.Error("it was not the kernel that killed")
	}
	must(t, c.Disarm(t.Context()))
	if group.Limit() != 128*mib || group.Record() != "" || group.Read("memory.high") != "max" || group.Read("memory.oom.group") != "0" {
		t.Errorf("limit %d, high %s, record %q", group.Limit(), group.Read("memory.high"), group.Record())
	}
}

// Who only observes is told of every limit that the kernel killed for, his own
// and the pod's, and has nothing written.
func TestKernelV2Observe(t *testing.T) {
	testkit.Need(t, testkit.V2Memory)
	pod := testkit.Tree(t, testkit.Options{Limit: 96 * mib})
	ctr := pod.Child("ctr", testkit.Options{})
	g := newGuard(t)
	c, err := g.Get(ctr.Path)
	must(t, err)
	_, err = c.Arm(t.Context(), cgroup.ArmOptions{Observe: true})
	must(t, err)
	for _, limited := range []*testkit.Group{pod, ctr} {
		limited.SetLimit(64 * mib)
		for range 5 {
			child := ctr.Start(testkit.Load{Kind: testkit.Anon})
			if e := g.await(cgroup.EventLimit, c); e.Level != limited.Path {
				t.Errorf("the limit of %s was hit, want %s", e.Level, limited.Path)
			}
			child.Await()
		}
		limited.SetLimit(128 * mib)
	}
	if ctr.Record() != "" || pod.Record() != "" || ctr.Read("memory.high") != "max" {
		t.Errorf("observing wrote %s %s", ctr.Record(), pod.Record())
	}
	g.no(cgroup.EventLimit)
}

// The end of the last process and of the directory are told, and a guard of
// what is gone leaves nothing behind.
func TestKernelV2EmptyAndGone(t *testing.T) {
	testkit.Need(t, testkit.V2Memory)
	pod := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
	group := pod.Child("ctr", testkit.Options{Limit: 64 * mib})
	child := group.Start(testkit.Load{Kind: testkit.Sleep})
	g := newGuard(t)
	c := g.arm(group)
	must(t, c.Borrow(t.Context(), 80*mib))
	if got := pod.Limit(); got != 208*mib {
		t.Errorf("the pod's limit is %d after a raise", got)
	}
	must(t, unix.Kill(child.Pid, unix.SIGKILL))
	g.await(cgroup.EventEmpty, c)
	testkit.Eventually(t, "it can be removed", func() bool { return unix.Rmdir(group.Dir()) == nil })
	g.await(cgroup.EventGone, c)
	if err := c.Freeze(t.Context()); !errors.Is(err, cgroup.ErrGone) {
		t.Errorf("freeze of what is gone: %v", err)
	}
	must(t, c.Disarm(t.Context()))
	if pod.Limit() != 128*mib || pod.Record() != "" {
		t.Errorf("the pod is left with limit %d, record %s", pod.Limit(), pod.Record())
	}
}
