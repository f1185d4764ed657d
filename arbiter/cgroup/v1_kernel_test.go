package cgroup_test

import (
	"testing"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

func TestKernelV1HoldRaiseKill(t *testing.T) {
	testkit.Need(t, testkit.V1Memory, testkit.V1Freezer)
	group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
	g := newGuard(t)
	c := g.arm(group)
	child := group.Start(testkit.Load{Kind: testkit.Anon})
	e := g.await(cgroup.EventLimit, c)
	t.Logf("%s: %s", e.Level, e.Why)
	must(t, c.Freeze(t.Context()))
	if !group.Frozen() {
		t.Error("not frozen")
	}
	before := child.Pages()
	must(t, c.Borrow(t.Context(), 16*mib))
	if got := group.Limit(); got != 80*mib {
		t.Errorf("limit %d after a raise", got)
	}
	must(t, c.Thaw(t.Context()))
	g.forget()
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	if child.Pages() == before {
		t.Error("nothing ran after the thaw")
	}
	must(t, c.Kill(t.Context()))
	child.Await()
	must(t, c.Disarm(t.Context()))
	if group.Limit() != 64*mib || group.Record() != "" || group.Key("memory.oom_control", "oom_kill_disable") != 0 {
		t.Errorf("limit %d, record %q", group.Limit(), group.Record())
	}
	if n := group.Kills(); n != 0 {
		t.Errorf("the kernel killed %d", n)
	}
}
