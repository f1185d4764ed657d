package cgroup_test

import (
	"syscall"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// TestKernelV1KilledWhileHeld kills a held process from outside, which on this
// version would wait for the thaw: the hold ends by itself and it dies.
func TestKernelV1KilledWhileHeld(t *testing.T) {
	testkit.Need(t, testkit.V1Memory, testkit.V1Freezer)
	group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
	g := newGuard(t)
	c := g.arm(group)
	child := group.Start(testkit.Load{Kind: testkit.Anon})
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	must(t, syscall.Kill(child.Pid, syscall.SIGTERM)) // no kill: it stays held
	must(t, syscall.Kill(child.Pid, syscall.SIGKILL))
	g.await(cgroup.EventFreezerChanged, c)
	g.await(cgroup.EventEmpty, c)
	testkit.Eventually(t, "the killed process is gone", child.Exited)
	if group.Frozen() {
		t.Error("the empty cgroup is still frozen")
	}
}
