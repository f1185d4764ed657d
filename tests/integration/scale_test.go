package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// many makes groups below a common parent, and a rig whose policy covers them.
func many(t testing.TB, n int, limit uint64, steps, verdict string) ([]*testkit.Group, *rig) {
	t.Helper()
	testkit.Need(t, testkit.Memory)
	tree := testkit.Tree(t, testkit.Options{})
	groups := make([]*testkit.Group, n)
	for i := range groups {
		groups[i] = tree.Child(fmt.Sprint("c", i), testkit.Options{Limit: limit})
	}
	glob := &testkit.Group{Path: tree.Path + "/*"}
	r := newRig(t, settings{groups: []*testkit.Group{glob}, policy: rule(glob, steps, verdict),
		config: fmt.Sprintf("[budget]\nheld = %[1]d\narmed = %[1]d\n", n)})
	return groups, r
}

// awaitGuards waits until n guards stand.
func (r *rig) awaitGuards(n int) {
	r.t.Helper()
	testkit.Eventually(r.t, fmt.Sprintf("%d are armed", n), func() bool {
		armed := 0
		for _, g := range decode[[]api.Guard](r.t, r.must("guards", "-o", "json")) {
			if g.State == "armed" || g.State == "partial" {
				armed++
			}
		}
		return armed == n
	})
}

// Many containers reach their limits in the same second. With budgets for it
// all are held and none is lost; their steps wait for each other. An orderly
// stop then gives every one of them the rule's otherwise.
func TestKernelStorm(t *testing.T) {
	n := 200
	if version() == 2 {
		n = 8 // an emulated machine
	}
	groups, r := many(t, n, 24*mib, `[[rule.step]]
action = "core-dump"
timeout = "5m"
`, "do = \"hold\"\nhold-for = \"10m\"\notherwise = \"kill\"")
	r.run("supervise")
	r.awaitGuards(n)
	leaks := make([]*leak, n)
	for i, g := range groups {
		leaks[i] = r.leak(g, "--rate", "10MiB/s")
	}
	testkit.Eventually(t, "all are held", func() bool { return len(r.holds()) == n })
	for i, g := range groups {
		if leaks[i].ended() || g.Kills() != 0 {
			t.Errorf("%s: ended %t, oom_kill %d", g.Path, leaks[i].ended(), g.Kills())
		}
	}
	r.stop()
	for _, l := range leaks {
		l.awaitEnd()
	}
	cases := 0
	entries, err := filepath.Glob(filepath.Join(r.dir, "state", "cases", "*", "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range entries {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rec := decode[casebook.Record](t, string(b))
		if rec.Outcome != casebook.OutcomeKill || rec.HeldAt.IsZero() {
			t.Errorf("%s closed as %s: %s", rec.Facts.Container.Cgroup, rec.Outcome, rec.Why)
		}
		cases++
	}
	if cases != n {
		t.Errorf("%d cases for %d containers", cases, n)
	}
}

// Guarding many quiet containers costs next to nothing, and hardly more
// wake-ups than guarding few.
func BenchmarkKernelIdle(b *testing.B) {
	few, n := 100, 1000
	if version() == 2 {
		few, n = 20, 200 // an emulated machine
	}
	for b.Loop() {
		small, large := idle(b, few), idle(b, n)
		b.Logf("%d: %s", few, small)
		b.Logf("%d: %s", n, large)
		if version() == 1 && (large.cpu > 0.01 || large.rss > 50*mib) {
			b.Errorf("%d guarded containers cost %s", n, large)
		}
		if large.wakeups > 2*small.wakeups {
			b.Errorf("%.0f wake-ups a second with %d, %.0f with %d", large.wakeups, n, small.wakeups, few)
		}
	}
}

// cost is what a daemon uses.
type cost struct {
	cpu     float64 // of one core
	wakeups float64 // a second
	rss     uint64
}

func (c cost) String() string {
	return fmt.Sprintf("%.2f %% of a core, %.0f wake-ups a second, %.1f MiB resident", c.cpu*100, c.wakeups, float64(c.rss)/mib)
}

// idle is what it costs to guard n containers that do nothing.
func idle(t testing.TB, n int) (c cost) {
	groups, r := many(t, n, 64*mib, "", `do = "kill"`)
	var sleepers []*exec.Cmd
	for _, g := range groups {
		sleeper := exec.Command("sleep", "600")
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
		sleepers = append(sleepers, sleeper)
		g.Place(sleeper.Process.Pid)
	}
	r.run("supervise")
	r.awaitGuards(n)
	// First come full looks, and on version 1 a row of thresholds for each: the
	// kernel takes its time over them.
	time.Sleep(20*time.Second + time.Duration(n)*40*time.Millisecond)
	const span = 30 * time.Second
	worker := r.workerPid()
	before, wakeups := cpuTime(t, worker), switches(t, worker)
	time.Sleep(span)
	c.cpu = (cpuTime(t, worker) - before).Seconds() / span.Seconds()
	c.wakeups = float64(switches(t, worker)-wakeups) / span.Seconds()
	c.rss = field(t, fmt.Sprintf("/proc/%d/status", worker), "VmRSS:") << 10
	r.stop()
	for _, s := range sleepers {
		_ = s.Process.Kill()
		_ = s.Wait()
	}
	return c
}

// cpuTime is what a process has used, to a hundredth of a second.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100
}

// switches counts how often the threads of a process went to sleep.
func switches(t testing.TB, pid int) (n uint64) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		n += field(t, name, "voluntary_ctxt_switches:")
	}
	return n
}

// field reads a number from a file of lines with names.
func field(t testing.TB, file, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", file, name)
	return 0
}

func version() int {
	if present, _ := testkit.Known(testkit.V2Memory); present {
		return 2
	}
	return 1
}
