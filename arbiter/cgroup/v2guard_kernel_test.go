package cgroup_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// guardedShare watches for a while and tells how much of it c was guarded.
func guardedShare(c cgroup.Cgroup, d time.Duration) float64 {
	guarded, all := 0, 0
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		all++
		if c.Status().State == cgroup.Guarded {
			guarded++
		}
	}
	return float64(guarded) / float64(all)
}

// A load that only fills page cache opens no case and is hardly slower: armed
// and not armed in turn, so that a busy machine slows both.
func TestKernelV2PageCache(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 128 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	file := filepath.Join(t.TempDir(), "cache")
	child := group.Start(testkit.Load{Kind: testkit.Cache, Ceiling: 400 * mib, File: file})
	testkit.Eventually(t, "the cache is full", func() bool { return group.Usage() > limit*8/10 })
	var armed, free uint64
	for range 8 {
		c := g.arm(group)
		before := child.Pages()
		if share := guardedShare(c, 2*time.Second); share > 0 {
			t.Errorf("guarded for %.1f%% of the time", share*100)
		}
		held := child.Pages() - before
		t.Logf("memory.high %s, %d high events", group.Read("memory.high"), group.Key("memory.events", "high"))
		must(t, c.Disarm(t.Context()))
		before = child.Pages()
		guardedShare(c, 2*time.Second)
		t.Logf("%d MiB armed, then %d not armed", held, child.Pages()-before)
		armed, free = armed+held, free+child.Pages()-before
	}
	g.no(cgroup.EventLimit)
	t.Logf("%d MiB written armed, %d not armed: %.0f%%", armed, free, float64(armed)/float64(free)*100)
	if armed < free/2 {
		t.Errorf("%d MiB written armed, %d not armed", armed, free)
	}
}

// A container that lives at 92 % of its limit is neither slowed down nor kept
// guarded: armed and not armed in turn, so that a busy machine slows both.
func TestKernelV2SteadyNearTheLimit(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 256 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	// The program itself takes what is missing to 92 %.
	child := group.Start(testkit.Load{Kind: testkit.Steady, Ceiling: limit*92/100 - 5*mib, Block: 4 * mib})
	testkit.Eventually(t, "it is steady", child.Done)
	var armed, free uint64
	var share float64
	const rounds = 4
	for range rounds {
		c := g.arm(group)
		testkit.Eventually(t, "no guard stands", func() bool { return c.Status().State == cgroup.Armed })
		guardedShare(c, 2*time.Second) // memory.high finds its place
		before := child.Pages()
		share += guardedShare(c, 4*time.Second) / rounds
		armed += child.Pages() - before
		u, err := c.Usage()
		must(t, err)
		t.Logf("%.1f%% of the limit, memory.high %s, %d high events", float64(u.Unreclaimable)/limit*100,
			group.Read("memory.high"), group.Key("memory.events", "high"))
		must(t, c.Disarm(t.Context()))
		before = child.Pages()
		guardedShare(c, 4*time.Second)
		free += child.Pages() - before
	}
	g.no(cgroup.EventLimit)
	t.Logf("%d loops armed, %d not armed: %.0f%%; guarded %.1f%% of the time", armed, free, float64(armed)/float64(free)*100, share*100)
	if armed < free/2 {
		t.Errorf("%d loops armed, %d not armed: it is throttled", armed, free)
	}
	if share > 0.01 {
		t.Errorf("guarded for %.1f%% of the time", share*100)
	}
}

// A guard is let go once growth ended, and everything is as before.
func TestKernelV2GuardComesAndGoes(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 128 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	child := group.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 96 * mib})
	other := group.Start(testkit.Load{Kind: testkit.Sleep})
	setScore(t, other.Pid, 300)
	g := newGuard(t)
	c := g.arm(group)
	testkit.Eventually(t, "it is guarded", func() bool { return c.Status().State == cgroup.Guarded })
	for _, pid := range group.Pids() {
		if got := score(t, pid); got != -1000 {
			t.Errorf("process %d has oom_score_adj %d while guarded", pid, got)
		}
	}
	if got := group.Read("memory.high"); got != "max" {
		t.Errorf("memory.high %s while guarded", got)
	}
	newcomer := group.Start(testkit.Load{Kind: testkit.Sleep})
	setScore(t, newcomer.Pid, 500)
	testkit.Eventually(t, "the newcomer is guarded", func() bool {
		return score(t, newcomer.Pid) == -1000 || c.Status().State == cgroup.Armed
	})
	testkit.Eventually(t, "the guard is let go", func() bool { return c.Status().State == cgroup.Armed })
	for pid, want := range map[int]int{child.Pid: 0, other.Pid: 300, newcomer.Pid: 500} {
		if got := score(t, pid); got != want {
			t.Errorf("process %d has oom_score_adj %d, want %d", pid, got, want)
		}
	}
	if high := group.Number("memory.high"); high >= limit || high < 96*mib {
		t.Errorf("memory.high %d after the guard", high)
	}
	g.no(cgroup.EventLimit)
	must(t, c.Disarm(t.Context()))
	checkUntouched(t, group, limit)
}

// A guarded container that grows no more stays unharmed when its guard is
// dropped for the node's sake, and no new guard comes up until it may.
func TestKernelV2DropGuards(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 128 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	child := group.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 118 * mib})
	g := newGuard(t)
	c := g.arm(group)
	testkit.Eventually(t, "it is above the top, and guarded", func() bool {
		return child.Done() && c.Status().State == cgroup.Guarded
	})
	must(t, g.DropGuards(t.Context()))
	if got := score(t, child.Pid); got != 0 {
		t.Errorf("oom_score_adj %d after the drop", got)
	}
	if share := guardedShare(c, time.Second); share > 0 {
		t.Errorf("guarded again for %.0f%% of a second", share*100)
	}
	g.AllowGuards()
	testkit.Eventually(t, "guards are up again", func() bool { return c.Status().State == cgroup.Guarded })
}

// With the budget used up no further limit is guarded.
func TestKernelV2GuardBudget(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 128 * mib
	g := newGuard(t)
	g.MaxGuarded = 1
	var cs []cgroup.Cgroup
	for range 2 {
		group := testkit.Tree(t, testkit.Options{Limit: limit})
		child := group.Start(testkit.Load{Kind: testkit.Anon, Ceiling: 118 * mib})
		testkit.Eventually(t, "it is near its limit", child.Done)
		cs = append(cs, g.arm(group))
	}
	testkit.Eventually(t, "one is guarded", func() bool { return cs[0].Status().State == cgroup.Guarded })
	if share := guardedShare(cs[1], time.Second); share > 0 {
		t.Error("both are guarded")
	}
}

// guard = "always" guards from the start.
func TestKernelV2AlwaysGuarded(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	group := testkit.Tree(t, testkit.Options{Limit: 64 * mib})
	child := group.Start(testkit.Load{Kind: testkit.Sleep})
	g := newGuard(t)
	c, err := g.Get(group.Path)
	must(t, err)
	st, err := c.Arm(t.Context(), cgroup.ArmOptions{Hold: true, AlwaysGuard: true})
	must(t, err)
	if st.State != cgroup.Guarded || score(t, child.Pid) != -1000 {
		t.Errorf("state %s, oom_score_adj %d", st.State, score(t, child.Pid))
	}
	if share := guardedShare(c, 2*time.Second); share < 1 {
		t.Errorf("guarded for only %.0f%% of the time", share*100)
	}
	must(t, c.Disarm(t.Context()))
	if got := score(t, child.Pid); got != 0 {
		t.Errorf("oom_score_adj %d after", got)
	}
}

// Without CAP_SYS_RESOURCE page faults are held all the same.
func TestKernelV2WithoutSysResource(t *testing.T) {
	testkit.Need(t, testkit.V2Memory)
	if os.Getenv(dropEnv) == "" {
		rerun(t, dropEnv+"=1")
		return
	}
	dropSysResource(t)
	for _, kind := range []string{"anon", "thp", "shm", "pipe", "read"} {
		for _, threads := range []string{"1", "8"} {
			t.Run(kind+"/"+threads, func(t *testing.T) { holdWithoutScores(t, kind, threads) })
		}
	}
}

func holdWithoutScores(t *testing.T, kind, threads string) {
	const limit = 256 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	c := g.arm(group)
	if st := c.Status(); st.State != cgroup.Partial || len(st.Missing) == 0 {
		t.Errorf("status %+v: it does not say what is missing", st)
	}
	l := startLeak(t, group, "--kind", kind, "--threads", threads, "--dir", t.TempDir())
	tellIfFailed(t, group, c, l)
	if took, ok := g.hold(c, l); !ok {
		t.Fatalf("it ended after %v: %v", took, l.ProcessState)
	}
	if !group.Frozen() || group.Kills() != 0 {
		t.Errorf("frozen %v, kernel kills %d", group.Frozen(), group.Kills())
	}
	if max := group.Limit(); max > limit+limit/4 {
		t.Errorf("memory.max %d stays raised", max)
	}
	t.Logf("usage %d MiB, memory.max %d MiB", group.Usage()/mib, group.Limit()/mib)
	must(t, c.Borrow(t.Context(), limit/4))
	must(t, c.Thaw(t.Context()))
	if _, ok := g.hold(c, l); !ok {
		t.Fatalf("it ended after the raise: %v", l.ProcessState)
	}
	must(t, c.Kill(t.Context()))
	<-l.end
	must(t, c.Disarm(t.Context()))
	checkUntouched(t, group, limit)
}

const dropEnv = "ARBITER_TEST_DROP"

// rerun runs this test again in a process of its own.
func rerun(t *testing.T, env string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in a process of its own: %v", err)
	}
}

// dropSysResource takes the capability from every thread.
func dropSysResource(t *testing.T) {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&hdr, &data[0]))
	data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	data[0].Permitted &^= 1 << unix.CAP_SYS_RESOURCE
	must(t, capsetAll(&hdr, &data))
}

func setScore(t *testing.T, pid, adj int) {
	t.Helper()
	must(t, os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(adj)), 0))
}
