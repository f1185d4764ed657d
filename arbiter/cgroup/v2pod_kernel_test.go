package cgroup_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// A pod with one container has the container's limit, and the pause process
// counts too: the pod is hit first. Holding, raising and restoring work there.
func TestKernelV2PodIsHitFirst(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 128 * mib
	pod := testkit.Tree(t, testkit.Options{Limit: limit})
	pause := pod.Child("pause", testkit.Options{}).Start(testkit.Load{Kind: testkit.Sleep})
	ctr := pod.Child("ctr", testkit.Options{Limit: limit})
	setScore(t, pause.Pid, -998)
	child := ctr.Start(testkit.Load{Kind: testkit.Anon})
	setScore(t, child.Pid, 700)
	g := newGuard(t)
	c := g.arm(ctr)
	e := g.await(cgroup.EventLimit, c)
	if e.Level != pod.Path {
		t.Errorf("the limit of %s was hit, want %s", e.Level, pod.Path)
	}
	must(t, c.Freeze(t.Context()))
	if got := score(t, child.Pid); got != 700 || pod.Kills() != 0 {
		t.Errorf("oom_score_adj %d while held, want 700; kernel kills %d", got, pod.Kills())
	}
	before := child.Pages()
	must(t, c.Borrow(t.Context(), 32*mib))
	if pod.Limit() != limit+32*mib || ctr.Limit() != limit+32*mib {
		t.Errorf("pod %d, container %d after a raise", pod.Limit(), ctr.Limit())
	}
	if got := c.Status().Borrowed; got != 32*mib {
		t.Errorf("%d borrowed", got)
	}
	g.forget()
	must(t, c.Thaw(t.Context()))
	g.await(cgroup.EventLimit, c)
	must(t, c.Freeze(t.Context()))
	if child.Pages() <= before || pod.Kills() != 0 {
		t.Errorf("held again: %d pages, before %d; kernel kills %d", child.Pages(), before, pod.Kills())
	}
	if err := c.Restore(t.Context()); err == nil {
		t.Error("a limit below usage was restored")
	}
	if pod.Kills() != 0 || !ctr.Frozen() {
		t.Errorf("kills %d, frozen %v", pod.Kills(), ctr.Frozen())
	}
	must(t, c.Kill(t.Context()))
	child.Await()
	must(t, c.Disarm(t.Context()))
	checkUntouched(t, pod, limit)
	checkUntouched(t, ctr, limit)
	if pause.Exited() || score(t, pause.Pid) != -998 {
		t.Errorf("pause exited: %v", pause.Exited())
	}
}

// At a pod's limit the container that grew is the one that is told about, and
// its neighbour lives.
func TestKernelV2PodOfTwo(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	pod := testkit.Tree(t, testkit.Options{Limit: 160 * mib})
	quiet := pod.Child("quiet", testkit.Options{Limit: 128 * mib})
	greedy := pod.Child("greedy", testkit.Options{Limit: 150 * mib})
	neighbour := quiet.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 90 * mib})
	testkit.Eventually(t, "the neighbour has its memory", neighbour.Done)
	g := newGuard(t)
	q, c := g.arm(quiet), g.arm(greedy)
	child := greedy.Start(testkit.Load{Kind: testkit.Anon})
	e := g.await(cgroup.EventLimit, c)
	if e.Level != pod.Path {
		t.Errorf("the limit of %s was hit, want %s", e.Level, pod.Path)
	}
	must(t, c.Freeze(t.Context()))
	if pod.Kills() != 0 || neighbour.Exited() || child.Exited() {
		t.Errorf("kills %d, neighbour gone %v, container gone %v", pod.Kills(), neighbour.Exited(), child.Exited())
	}
	must(t, c.Kill(t.Context()))
	child.Await()
	must(t, c.Disarm(t.Context()))
	must(t, q.Disarm(t.Context()))
	if neighbour.Exited() || score(t, neighbour.Pid) != 0 {
		t.Error("the neighbour did not survive as it was")
	}
	for _, group := range []*testkit.Group{pod, quiet, greedy} {
		if r := group.Record(); r != "" {
			t.Errorf("%s: a record is left: %s", group.Path, r)
		}
	}
}

// A container that is held while its pod's guard stands takes over what is known
// of its scores: it has them again when all is undone.
func TestKernelV2HeldUnderAGuard(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	pod := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
	near, other := pod.Child("near", testkit.Options{}), pod.Child("other", testkit.Options{Limit: 64 * mib})
	sleeper := other.Start(testkit.Load{Kind: testkit.Sleep})
	setScore(t, sleeper.Pid, 300)
	child := near.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 110 * mib})
	g := newGuard(t)
	c := g.arm(near)
	testkit.Eventually(t, "the pod is guarded", func() bool {
		return child.Done() && c.Status().State == cgroup.Guarded && score(t, sleeper.Pid) == -1000
	})
	o, err := g.Get(other.Path)
	must(t, err)
	for _, change := range []func() error{
		func() error { return o.Freeze(t.Context()) },
		func() error { return o.Borrow(t.Context(), 16*mib) },
	} {
		must(t, change())
		must(t, c.Disarm(t.Context()))
		must(t, o.Disarm(t.Context()))
		if got := score(t, sleeper.Pid); got != 300 {
			t.Errorf("oom_score_adj %d when all was undone, want 300", got)
		}
		for _, group := range []*testkit.Group{pod, near, other} {
			if r := group.Record(); r != "" {
				t.Errorf("%s: a record is left: %s", group.Path, r)
			}
		}
		g.arm(near)
		testkit.Eventually(t, "the pod is guarded again", func() bool { return score(t, sleeper.Pid) == -1000 })
	}
}

// A guard goes with the limit that it was for.
func TestKernelV2LimitRemovedWhileGuarded(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	group := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
	child := group.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 118 * mib})
	g := newGuard(t)
	c := g.arm(group)
	testkit.Eventually(t, "it is guarded", func() bool { return child.Done() && c.Status().State == cgroup.Guarded })
	group.Write("memory.max", "max")
	testkit.Eventually(t, "the guard is gone", func() bool {
		return c.Status().State != cgroup.Guarded && score(t, child.Pid) == 0 && group.Read("memory.high") == "max"
	})
	group.SetLimit(128 * mib)
	testkit.Eventually(t, "it is guarded again", func() bool { return c.Status().State == cgroup.Guarded })
	must(t, c.Disarm(t.Context()))
	checkUntouched(t, group, 128*mib)
}

// Where a container that nobody guards fills the pod, the kernel decides.
func TestKernelV2PodNotOurs(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	pod := testkit.Tree(t, testkit.Options{Limit: 128 * mib})
	ours := pod.Child("ours", testkit.Options{Limit: 96 * mib})
	other := pod.Child("other", testkit.Options{})
	guarded := ours.Start(testkit.Load{Kind: testkit.Sleep})
	g := newGuard(t)
	c := g.arm(ours)
	child := other.Start(testkit.Load{Kind: testkit.Anon})
	g.await(cgroup.EventNotOurs, c)
	child.Await()
	if guarded.Exited() {
		t.Error("the guarded container was killed for it")
	}
}

// The kernel kills the whole container, and says so in its own counters.
func TestKernelV2Verdict(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	for _, processes := range []int{1, 8} {
		for _, nested := range []bool{false, true} {
			for _, frozen := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d/nested=%v/frozen=%v", processes, nested, frozen), func(t *testing.T) {
					verdict(t, processes, nested, frozen)
				})
			}
		}
	}
}

func verdict(t *testing.T, processes int, nested, frozen bool) {
	const limit = 128 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	home := group
	if nested {
		home = group.Child("inner", testkit.Options{}).Child("innermost", testkit.Options{})
	}
	var children []*testkit.Child
	for range processes {
		children = append(children, home.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 64 * mib / uint64(processes)}))
	}
	for _, child := range children {
		testkit.Eventually(t, "it has its memory", child.Done)
	}
	setScore(t, children[0].Pid, -1000) // a task that the kernel would spare
	g := newGuard(t)
	c := g.arm(group)
	if frozen {
		must(t, c.Freeze(t.Context()))
	}
	began := time.Now()
	must(t, c.Kill(t.Context()))
	t.Logf("killed in %v", time.Since(began).Round(time.Millisecond))
	for _, child := range children {
		child.Await()
	}
	if n := group.Kills(); n == 0 {
		t.Error("it was not the kernel that killed")
	}
	if got := group.Usage(); got > 8*mib {
		t.Errorf("%d bytes are still charged", got)
	}
	g.no(cgroup.EventEscape)
	must(t, c.Disarm(t.Context()))
	checkUntouched(t, group, limit)
}

// What somebody else writes stays, and is the container's limit from then on.
func TestKernelV2ForeignWrites(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit, other = 128 * mib, 160 * mib
	states := map[string]func(*testing.T, *guard, cgroup.Cgroup, *testkit.Group){
		"armed": func(*testing.T, *guard, cgroup.Cgroup, *testkit.Group) {},
		"held":  func(t *testing.T, _ *guard, c cgroup.Cgroup, _ *testkit.Group) { must(t, c.Freeze(t.Context())) },
		"held and lent": func(t *testing.T, _ *guard, c cgroup.Cgroup, _ *testkit.Group) {
			must(t, c.Freeze(t.Context()))
			must(t, c.Borrow(t.Context(), 16*mib))
		},
		"guarded": func(t *testing.T, _ *guard, c cgroup.Cgroup, group *testkit.Group) {
			child := group.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 112 * mib})
			testkit.Eventually(t, "it is guarded", func() bool { return child.Done() && c.Status().State == cgroup.Guarded })
		},
	}
	for name, reach := range states {
		t.Run(name, func(t *testing.T) {
			group := testkit.Tree(t, testkit.Options{Limit: limit})
			group.Start(testkit.Load{Kind: testkit.Sleep})
			g := newGuard(t)
			c := g.arm(group)
			reach(t, g, c, group)
			group.SetLimit(other)
			g.await(cgroup.EventLimitChanged, c)
			if u, err := c.Usage(); err != nil || u.BaseLimit.String() != fmt.Sprint(other) {
				t.Errorf("base limit %s (%v), want %d", u.BaseLimit, err, other)
			}
			group.Write("memory.high", fmt.Sprint(other-8*mib))
			testkit.Eventually(t, "memory.high is adopted", func() bool {
				return group.Record() != "" && strings.Contains(group.Record(), fmt.Sprint(other-8*mib))
			})
			for _, pid := range group.Pids() {
				setScore(t, pid, 123)
			}
			must(t, c.Disarm(t.Context()))
			if group.Limit() != other || group.Number("memory.high") != other-8*mib {
				t.Errorf("max %d, high %d after", group.Limit(), group.Number("memory.high"))
			}
			for _, pid := range group.Pids() {
				if got := score(t, pid); got != 123 {
					t.Errorf("oom_score_adj %d after", got)
				}
			}
			if group.Record() != "" || group.Read("cgroup.freeze") != "0" {
				t.Errorf("record %s, cgroup.freeze %s", group.Record(), group.Read("cgroup.freeze"))
			}
		})
	}
}

// Somebody who thaws what we hold is told about.
func TestKernelV2ForeignThaw(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
	group.Start(testkit.Load{Kind: testkit.Sleep})
	g := newGuard(t)
	c := g.arm(group)
	must(t, c.Freeze(t.Context()))
	group.Write("cgroup.freeze", "0")
	g.await(cgroup.EventFreezerChanged, c)
	testkit.Eventually(t, "it counts as running", func() bool { return c.Status().State != cgroup.HeldNow })
	group.Start(testkit.Load{Kind: testkit.Anon})
	g.await(cgroup.EventLimit, c) // as if it had never been held
	must(t, c.Freeze(t.Context()))
	must(t, c.Kill(t.Context()))
	must(t, c.Disarm(t.Context()))
	group.Start(testkit.Load{Kind: testkit.Sleep})
	// What somebody else froze stays frozen.
	g.arm(group)
	group.Write("cgroup.freeze", "1")
	g.await(cgroup.EventFreezerChanged, c)
	must(t, c.Freeze(t.Context()))
	must(t, c.Thaw(t.Context()))
	must(t, c.Disarm(t.Context()))
	if group.Read("cgroup.freeze") != "1" {
		t.Error("thawed what somebody else had frozen")
	}
	group.Write("cgroup.freeze", "0")
}
