package cgroup_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// TestKernelV1NoPageTouched holds a leak a hundred times in a row, with a
// little more room each time, and looks at the page counter right after the
// freeze and again before the thaw.
func TestKernelV1NoPageTouched(t *testing.T) {
	testkit.Need(t, testkit.V1Memory, testkit.V1Freezer)
	for _, threads := range []int{1, 50} {
		t.Run(fmt.Sprintf("%d threads", threads), func(t *testing.T) {
			group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
			g := newGuard(t)
			// As the daemon does: samples find a sleeper that no event told of.
			c := g.armWith(group, cgroup.ArmOptions{Hold: true, Sample: true})
			child := group.Start(testkit.Load{Kind: testkit.Anon, Threads: threads})
			asleep, nudged := 0, 0
			for i := range uint64(100) {
				g.await(cgroup.EventLimit, c)
				// Half of the holds wait for the very limit, where a task is asleep.
				if i%2 == 0 {
					testkit.Eventually(t, "a thread sleeps at the limit", child.Asleep)
					asleep++
				}
				must(t, c.Freeze(t.Context()))
				held := child.Pages()
				if !group.Frozen() {
					t.Fatalf("hold %d: not frozen: %+v, record %s", i, c.Status(), group.Record())
				}
				// Usage that a nudge let grow by a page makes the kernel refuse to
				// lower the limit again. The next change does it.
				if extra := group.Limit() - (64+i)*mib; extra > 0 {
					nudged++
					if extra%4096 != 0 || extra > 64*4096 {
						t.Fatalf("hold %d: limit is off by %d", i, extra)
					}
				}
				must(t, c.Grant(t.Context(), (i+1)*mib))
				if got, want := group.Limit(), (65+i)*mib; got != want {
					t.Fatalf("hold %d: limit %d, want %d", i, got, want)
				}
				if now := child.Pages(); now != held {
					t.Fatalf("hold %d: %d pages touched while held", i, now-held)
				}
				g.forget()
				must(t, c.Thaw(t.Context()))
			}
			if n := group.Kills(); n != 0 {
				t.Errorf("the kernel killed %d processes", n)
			}
			g.no(cgroup.EventEscape)
			if child.Exited() {
				t.Error("the child is gone")
			}
			t.Logf("100 holds, %d of them with a sleeper, %d left nudged until the raise", asleep, nudged)
		})
	}
}

// TestKernelV1Freezers holds and lets go by each way to freeze.
func TestKernelV1Freezers(t *testing.T) {
	testkit.Need(t, testkit.V1Memory, testkit.V1Freezer)
	for _, test := range []struct {
		name, want string
		opts       testkit.Options
		needs      testkit.Feature
		none       bool
	}{
		{name: "its own v1 freezer", want: "freezer /", needs: testkit.V1Freezer},
		{name: "hybrid cgroup2", want: "cgroup.freeze", opts: testkit.Options{NoFreezer: true, Unified: true}, needs: testkit.Hybrid},
		{name: "a freezer of ours", want: "own freezer", opts: testkit.Options{NoFreezer: true}, needs: testkit.V1Freezer},
		{name: "SIGSTOP", want: "SIGSTOP", opts: testkit.Options{NoFreezer: true}, needs: testkit.V1Memory, none: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			testkit.Need(t, test.needs)
			test.opts.Limit = 64 * mib
			group := testkit.Tree(t, test.opts)
			bystander := group.Start(testkit.Load{Kind: testkit.Sleep})
			g := newGuard(t)
			if test.none {
				g.ForgetFreezers()
			}
			c := g.arm(group)
			if got := c.Status().Freezer; !strings.HasPrefix(got, test.want) {
				t.Fatalf("freezer %q, want %q", got, test.want)
			}
			leak := group.Start(testkit.Load{Kind: testkit.Anon, Threads: 4})
			for i := range uint64(10) {
				g.await(cgroup.EventLimit, c)
				testkit.Eventually(t, "a thread sleeps at the limit", leak.Asleep)
				must(t, c.Freeze(t.Context()))
				held := leak.Pages()
				standsStill(t, leak)
				standsStill(t, bystander)
				if now := leak.Pages(); now != held {
					t.Fatalf("hold %d: %d pages touched", i, now-held)
				}
				must(t, c.Grant(t.Context(), (i+1)*mib))
				g.forget()
				must(t, c.Thaw(t.Context()))
			}
			if n := group.Kills(); n != 0 {
				t.Errorf("the kernel killed %d processes", n)
			}
			must(t, c.Kill(t.Context()))
			leak.Await()
			bystander.Await()
			must(t, c.Disarm(t.Context()))
			if r := group.Record(); r != "" {
				t.Errorf("record %s", r)
			}
		})
	}
}

// standsStill fails unless no thread of the child gets processor time. What a
// frozen thread shows as its state differs between freezers and kernels.
func standsStill(t *testing.T, c *testkit.Child) {
	t.Helper()
	if a, b := c.Switches(), c.Switches(); a != b || a == 0 {
		t.Fatalf("process %d runs: %d and then %d context switches", c.Pid, a, b)
	}
}

func TestKernelV1ResumeKeepsData(t *testing.T) {
	testkit.Need(t, testkit.V1Memory, testkit.V1Freezer)
	group := testkit.Tree(t, testkit.Options{Limit: 32 * mib})
	g := newGuard(t)
	c := g.arm(group)
	child := group.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 40 * mib})
	for range 5 {
		g.await(cgroup.EventLimit, c)
		must(t, c.Freeze(t.Context()))
		must(t, c.Grant(t.Context(), 32*mib))
		g.forget()
		must(t, c.Thaw(t.Context()))
		if group.Limit() == 64*mib {
			break
		}
	}
	testkit.Eventually(t, "the child reaches its ceiling", child.Done)
	if !child.Intact() {
		t.Error("pages hold something else than was written")
	}
	if st := c.Status(); st.Granted != 32*mib {
		t.Errorf("status: %+v", st)
	}
	// 40 MiB do not fit under 32: the limit goes as far down as it can.
	if err := c.Restore(t.Context()); !isUsage(err) {
		t.Errorf("restore: %v, want ErrUsage", err)
	}
	if got := group.Limit(); got <= 40*mib || got >= 64*mib {
		t.Errorf("limit %d after a restore that does not fit", got)
	}
	if group.Kills() != 0 || child.Exited() {
		t.Error("the restore killed the child")
	}
}
