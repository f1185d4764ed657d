package cgroup_test

import (
	"testing"

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
