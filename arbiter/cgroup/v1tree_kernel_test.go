package cgroup_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

func needV1(t *testing.T) {
	t.Helper()
	testkit.Need(t, testkit.V1Memory, testkit.V1Freezer)
}

// flag reads whether the kernel is kept from killing in a group.
func flag(g *testkit.Group) bool { return g.Key("memory.oom_control", "oom_kill_disable") == 1 }

// TestKernelV1PodLimit is a one-container pod: its limit equals the
// container's and is hit first, since the pause process counts too.
func TestKernelV1PodLimit(t *testing.T) {
	needV1(t)
	pod := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	pause := pod.Child("pause", testkit.Options{}).Start(testkit.Load{Kind: testkit.Anon, Ceiling: 4 * mib})
	testkit.Eventually(t, "the pause process is there", pause.Done)
	ctr := pod.Child("ctr", testkit.Options{Limit: 48 * mib})
	g := newGuard(t)
	c := g.arm(ctr)
	if !flag(pod) || !flag(ctr) {
		t.Error("the pod is not armed with its container")
	}
	leak := ctr.Start(testkit.Load{Kind: testkit.Anon})
	testkit.Eventually(t, "the leak sleeps at the limit", leak.Asleep)
	for {
		e := g.await(cgroup.EventLimit, c)
		if e.Level == pod.Path {
			break // the first may have come from below the limit
		}
	}
	must(t, c.Freeze(t.Context()))
	held := leak.Pages()
	if pod.Limit() > 48*mib+64*4096 {
		t.Errorf("pod limit %d", pod.Limit())
	}
	must(t, c.Grant(t.Context(), 8*mib))
	if pod.Limit() != 56*mib || ctr.Limit() != 56*mib {
		t.Errorf("limits %d, %d after a raise by 8 MiB", pod.Limit(), ctr.Limit())
	}
	u, err := c.Usage()
	must(t, err)
	if base, _ := u.BaseLimit.Bytes(); base != 48*mib {
		t.Errorf("base limit %d", base)
	}
	g.forget()
	must(t, c.Thaw(t.Context()))
	g.await(cgroup.EventLimit, c)
	if leak.Pages() == held {
		t.Error("the raise made no room")
	}
	must(t, c.Kill(t.Context()))
	must(t, c.Disarm(t.Context()))
	if pod.Limit() != 48*mib || ctr.Limit() != 48*mib || flag(pod) || flag(ctr) || pod.Record() != "" {
		t.Errorf("not undone: %d %d %v %v %q", pod.Limit(), ctr.Limit(), flag(pod), flag(ctr), pod.Record())
	}
	if pause.Exited() || pod.Kills()+ctr.Kills() != 0 {
		t.Error("something else died")
	}
}

// TestKernelV1Offender has two guarded containers under one pod limit: the
// event names the one that leaks.
func TestKernelV1Offender(t *testing.T) {
	needV1(t)
	pod := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	good, bad := pod.Child("good", testkit.Options{}), pod.Child("bad", testkit.Options{})
	g := newGuard(t)
	quiet, loud := g.arm(good), g.arm(bad)
	calm := good.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 16 * mib})
	testkit.Eventually(t, "the calm one stands", calm.Done)
	bad.Start(testkit.Load{Kind: testkit.Anon})
	e := g.await(cgroup.EventLimit, loud)
	for strings.Contains(e.Why, "below the limit") { // early; who sleeps there tells
		e = g.await(cgroup.EventLimit, loud)
	}
	if e.Level != pod.Path {
		t.Errorf("level %s", e.Level)
	}
	must(t, loud.Freeze(t.Context()))
	must(t, loud.Kill(t.Context()))
	for len(g.events) > 0 {
		if e := <-g.events; e.Cgroup == quiet && e.Kind == cgroup.EventLimit {
			t.Errorf("the calm container was named: %s", e.Why)
		}
	}
	if calm.Exited() {
		t.Error("the calm container died")
	}
}

// TestKernelV1NotOurs has an unguarded container hit the limit of a pod that is
// armed for another one's sake: the kernel decides, and the guard comes back.
func TestKernelV1NotOurs(t *testing.T) {
	needV1(t)
	pod := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	ours, other := pod.Child("ours", testkit.Options{}), pod.Child("other", testkit.Options{})
	g := newGuard(t)
	c := g.arm(ours)
	leak := other.Start(testkit.Load{Kind: testkit.Anon, Pause: time.Microsecond})
	e := g.await(cgroup.EventNotOurs, c)
	if e.Level != pod.Path {
		t.Errorf("level %s", e.Level)
	}
	leak.Await()
	if other.Kills() == 0 {
		t.Error("the kernel did not kill the leak")
	}
	testkit.Eventually(t, "the pod is armed again", func() bool { return flag(pod) })
	g.no(cgroup.EventEscape)
}

func TestKernelV1InheritedFlags(t *testing.T) {
	needV1(t)
	pod := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	before := pod.Child("before", testkit.Options{})
	before.Write("memory.oom_control", "1") // somebody wants it so
	g := newGuard(t)
	c := g.arm(pod)
	after := pod.Child("after", testkit.Options{})
	deep := after.Child("deep", testkit.Options{})
	testkit.Eventually(t, "children of an armed cgroup are cleared", func() bool { return !flag(after) && !flag(deep) })
	for range 200 { // created and removed at once: must harm nobody
		dir := pod.Dir() + "/brief"
		must(t, os.Mkdir(dir, 0o755))
		must(t, unix.Rmdir(dir))
	}
	if !flag(pod) || !flag(before) {
		t.Error("a flag was cleared that is none of the children's")
	}
	inner, err := g.Get(after.Path)
	must(t, err)
	after.SetLimit(16 * mib)
	_, err = inner.Arm(t.Context(), cgroup.ArmOptions{Hold: true})
	must(t, err)
	must(t, c.Disarm(t.Context()))
	must(t, inner.Disarm(t.Context()))
	if flag(pod) || flag(after) || flag(deep) || !flag(before) {
		t.Error("flags are not as before")
	}
	leak := after.Start(testkit.Load{Kind: testkit.Anon})
	leak.Await() // the kernel kills again
}

// TestKernelV1SwapLimit keeps memory.memsw at or above memory all the way.
func TestKernelV1SwapLimit(t *testing.T) {
	needV1(t)
	testkit.Need(t, testkit.SwapCounted)
	group := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	group.Write("memory.memsw.limit_in_bytes", "50331648")
	g := newGuard(t)
	c := g.arm(group)
	leak := group.Start(testkit.Load{Kind: testkit.Anon})
	testkit.Eventually(t, "the leak sleeps at the limit", leak.Asleep)
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	must(t, c.Borrow(t.Context(), 16*mib))
	if m, s := group.Limit(), group.Number("memory.memsw.limit_in_bytes"); m != 64*mib || s != 64*mib {
		t.Errorf("limits %d and %d after a raise", m, s)
	}
	must(t, c.Restore(t.Context()))
	must(t, c.Thaw(t.Context()))
	must(t, c.Kill(t.Context()))
	must(t, c.Disarm(t.Context()))
	if m, s := group.Limit(), group.Number("memory.memsw.limit_in_bytes"); m != 48*mib || s != 48*mib {
		t.Errorf("limits %d and %d in the end", m, s)
	}
}

func TestKernelV1EmptyAndGone(t *testing.T) {
	needV1(t)
	pod := testkit.Tree(t, testkit.Options{})
	ctr := pod.Child("ctr", testkit.Options{Limit: 48 * mib})
	g := newGuard(t)
	c := g.arm(ctr)
	first, second := ctr.Start(testkit.Load{Kind: testkit.Sleep}), ctr.Start(testkit.Load{Kind: testkit.Sleep})
	for _, child := range []*testkit.Child{first, second} {
		g.no(cgroup.EventEmpty)
		must(t, unix.Kill(child.Pid, unix.SIGKILL))
		child.Await()
	}
	g.await(cgroup.EventEmpty, c)
	must(t, unix.Rmdir(ctr.FreezerDir()))
	testkit.Eventually(t, "the cgroup is removed", func() bool { return unix.Rmdir(ctr.Dir()) == nil })
	g.await(cgroup.EventGone, c)
	for name, err := range map[string]error{
		"freeze": c.Freeze(t.Context()), "borrow": c.Borrow(t.Context(), mib), "thaw": c.Thaw(t.Context()),
	} {
		if !errors.Is(err, cgroup.ErrGone) {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
	}
	if _, err := c.Usage(); !errors.Is(err, cgroup.ErrGone) {
		t.Errorf("usage: %v, want ErrGone", err)
	}
	must(t, c.Kill(t.Context()))
	must(t, c.Disarm(t.Context()))
	again := pod.Child("ctr", testkit.Options{Limit: 48 * mib})
	fresh, err := g.Get(again.Path)
	must(t, err)
	if fresh == c || fresh.ID() == c.ID() {
		t.Error("a new directory at the old path is taken for the old one")
	}
}

func TestKernelV1Escape(t *testing.T) {
	needV1(t)
	group := testkit.Tree(t, testkit.Options{Limit: 48 * mib})
	g := newGuard(t)
	c := g.arm(group)
	group.Write("memory.oom_control", "0") // somebody takes the guard away
	group.Start(testkit.Load{Kind: testkit.Anon}).Await()
	e := g.await(cgroup.EventEscape, c)
	if !strings.Contains(e.Why, "killed 1") {
		t.Errorf("why: %s", e.Why)
	}
}

// TestKernelV1Kill kills what is frozen, what sleeps, and what forks on.
func TestKernelV1Kill(t *testing.T) {
	needV1(t)
	for _, test := range []struct {
		name   string
		kind   testkit.Kind
		frozen bool
	}{
		{"asleep at the limit", testkit.Anon, false},
		{"held", testkit.Anon, true},
		{"fork bomb", testkit.Forks, false},
		{"held fork bomb", testkit.Forks, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			group := testkit.Tree(t, testkit.Options{Limit: 256 * mib})
			g := newGuard(t)
			c := g.arm(group)
			child := group.Start(testkit.Load{Kind: test.kind})
			if test.kind == testkit.Forks {
				testkit.Eventually(t, "it forks", func() bool { return child.Pages() > 30 })
			} else {
				g.await(cgroup.EventLimit, c)
			}
			if test.frozen {
				// A bomb can outrun the freezer for as long as Freeze tries.
				testkit.Eventually(t, "it is held", func() bool { return c.Freeze(t.Context()) == nil })
			}
			must(t, c.Kill(t.Context()))
			if pids := group.Pids(); len(pids) != 0 {
				t.Errorf("%d processes are left", len(pids))
			}
			if usage := group.Usage(); usage > 64*mib {
				t.Errorf("%d bytes are still charged", usage)
			}
			child.Await()
			must(t, c.Disarm(t.Context()))
			if group.Record() != "" || group.Kills() != 0 {
				t.Errorf("record %q, %d kernel kills", group.Record(), group.Kills())
			}
		})
	}
}
