package cgroup_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// A window is what a load did in a while.
type window struct {
	rate    float64 // of its own progress, per second
	stalled float64 // share of the time that somebody in it waited for memory
	guarded float64 // share of the time
}

func watchLoad(t *testing.T, group *testkit.Group, child *testkit.Child, c cgroup.Cgroup, d time.Duration) window {
	t.Helper()
	stall := stalledMicros(t, group)
	pages, from := child.Pages(), time.Now()
	w := window{guarded: guardedShare(c, d)}
	span := time.Since(from)
	w.rate = float64(child.Pages()-pages) / span.Seconds()
	w.stalled = float64(stalledMicros(t, group)-stall) / float64(span.Microseconds())
	return w
}

// stalledMicros is the total of memory.pressure's first line.
func stalledMicros(t *testing.T, group *testkit.Group) uint64 {
	t.Helper()
	line, _, _ := strings.Cut(group.Read("memory.pressure"), "\n")
	_, total, _ := strings.Cut(line, "total=")
	n, err := strconv.ParseUint(total, 10, 64)
	must(t, err)
	return n
}

// compared is a load's progress armed against not armed.
type compared struct {
	ratio            float64 // median over the rounds
	low, high        float64 // its quartiles
	stalled, guarded float64 // means while armed
}

func (c compared) String() string {
	return fmt.Sprintf("%.1f %% of the speed without (quartiles %.1f and %.1f); stalled for %.2f %%, guarded for %.2f %% of the time",
		c.ratio*100, c.low*100, c.high*100, c.stalled*100, c.guarded*100)
}

// compare lets a load run armed and not armed in turn, so that a busy machine
// slows both, and sets each armed window against those on both sides of it.
func (g *guard) compare(group *testkit.Group, child *testkit.Child, rounds int, settle, d time.Duration) compared {
	g.t.Helper()
	c, err := g.Get(group.Path)
	must(g.t, err)
	var res compared
	var ratios []float64
	before := watchLoad(g.t, group, child, c, d)
	for range rounds {
		_, err := c.Arm(g.t.Context(), cgroup.ArmOptions{Hold: true})
		must(g.t, err)
		time.Sleep(settle)
		armed := watchLoad(g.t, group, child, c, d)
		must(g.t, c.Disarm(g.t.Context()))
		time.Sleep(settle)
		after := watchLoad(g.t, group, child, c, d)
		ratios = append(ratios, 2*armed.rate/(before.rate+after.rate))
		res.stalled += armed.stalled / float64(rounds)
		res.guarded += armed.guarded / float64(rounds)
		before = after
	}
	slices.Sort(ratios)
	res.low, res.ratio, res.high = ratios[rounds/4], ratios[rounds/2], ratios[rounds*3/4]
	g.t.Logf("%s; memory.high events %d", res, group.Key("memory.events", "high"))
	return res
}

// A load that only fills page cache opens no case and is hardly slower.
func TestKernelV2PageCache(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 128 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	file := filepath.Join(t.TempDir(), "cache")
	child := group.Start(testkit.Load{Kind: testkit.Cache, Ceiling: 200 * mib, File: file})
	testkit.Eventually(t, "the cache is full", func() bool { return group.Usage() > limit*8/10 })
	got := g.compare(group, child, 12, 500*time.Millisecond, 6*time.Second)
	g.no(cgroup.EventLimit)
	if got.ratio < 0.8 || got.guarded > 0 {
		t.Errorf("it is slowed down or guarded: %s", got)
	}
}

// A container that lives at 92 % of its limit is neither slowed down nor kept
// guarded.
func TestKernelV2SteadyNearTheLimit(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit = 256 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	// The program itself takes what is missing to 92 %.
	child := group.Start(testkit.Load{Kind: testkit.Steady, Ceiling: limit*92/100 - 5*mib, Block: 4 * mib})
	testkit.Eventually(t, "it is steady", child.Done)
	got := g.compare(group, child, 12, 2*time.Second, 2*time.Second)
	g.no(cgroup.EventLimit)
	if u := group.Usage(); u < limit*88/100 || u > limit*94/100 {
		t.Errorf("it stands at %d of %d bytes", u, limit)
	}
	if got.ratio < 0.8 || got.stalled > 0.01 || got.guarded > 0.01 {
		t.Errorf("it is slowed down or guarded: %s", got)
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
