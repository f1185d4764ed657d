package cgroup_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/cmd/memleak/progress"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// memleakPath is the project's own allocator, built beforehand.
const memleakPath = "../../bin/memleak"

// A leak is a running memleak.
type leak struct {
	*exec.Cmd
	t    *testing.T
	file string
	end  chan struct{}
}

// startLeak runs memleak in the group.
func startLeak(t *testing.T, group *testkit.Group, args ...string) *leak {
	t.Helper()
	l := &leak{t: t, file: filepath.Join(t.TempDir(), "progress"), end: make(chan struct{})}
	l.Cmd = exec.Command(memleakPath, append(args, "--progress", l.file, "--cgroup", group.Dir())...)
	l.Stderr = os.Stderr
	must(t, l.Start())
	go func() {
		_ = l.Wait()
		close(l.end)
	}()
	t.Cleanup(func() {
		_ = unix.Kill(l.Process.Pid, unix.SIGKILL)
		<-l.end
	})
	return l
}

func (l *leak) report() progress.Report {
	l.t.Helper()
	r, err := progress.Read(l.file)
	must(l.t, err)
	return r
}

func (l *leak) alive() bool {
	select {
	case <-l.end:
		return false
	default:
		return true
	}
}

// Every way to take memory is held at the limit, alive, and never above it.
// Those that take it by page faults go on unharmed with more room. Where the
// kernel throttles nothing inside a system call, that is asked of a guard that
// always stands; what comes of the other one is only told.
func TestKernelV2Matrix(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	always := !throttlesCalls()
	for _, threads := range []int{1, 8, 32} {
		for _, kind := range []string{"anon", "thp", "populate", "populate-thp", "shm", "pipe", "mlock", "read", "mixed"} {
			if kind == "populate-thp" && always {
				continue // MADV_POPULATE_WRITE is of 5.14
			}
			o := cgroup.ArmOptions{Hold: true, AlwaysGuard: always}
			t.Run(fmt.Sprintf("%s/%d", kind, threads), func(t *testing.T) {
				told.add(kind, threads, always, holdOne(t, kind, threads, o, true))
			})
			if !always {
				continue
			}
			o.AlwaysGuard = false
			t.Run(fmt.Sprintf("auto/%s/%d", kind, threads), func(t *testing.T) {
				told.add(kind, threads, false, holdOne(t, kind, threads, o, false))
			})
		}
	}
	t.Logf("in all rounds so far:\n%s", told)
}

// throttlesCalls reports whether memory.high stops a task within one system
// call (since 5.18).
func throttlesCalls() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.pressure") // 6.1
	return err == nil
}

// told sums up the matrix over the rounds of -test.count.
var told = matrix{}

type (
	matrix map[string]*row
	row    struct {
		runs, held, again, kills, ended, unharmed int
		calls                                     map[string]int // runs with such an error
	}
)

// An outcome is what became of one run.
type outcome struct {
	held, again bool // frozen and alive at the limit; once more after a raise
	kills       uint64
	calls       map[string]bool // that failed or fell short
}

func (m matrix) add(kind string, threads int, always bool, o outcome) {
	guard := "auto"
	if always {
		guard = "always"
	}
	key := fmt.Sprintf("%-6s %-12s %2d", guard, kind, threads)
	r := m[key]
	if r == nil {
		r = &row{calls: map[string]int{}}
		m[key] = r
	}
	r.runs++
	r.held += count(o.held)
	r.again += count(o.again)
	r.kills += count(o.kills > 0)
	r.ended += count(o.kills == 0 && !o.again)
	r.unharmed += count(len(o.calls) == 0)
	for c := range o.calls {
		r.calls[c]++
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (m matrix) String() string {
	var b strings.Builder
	b.WriteString("guard  kind    threads | runs | held | held after a raise | killed by the kernel | ended by itself | saw no error | calls that failed or fell short, in runs\n")
	for _, key := range slices.Sorted(maps.Keys(m)) {
		r := m[key]
		fmt.Fprintf(&b, "%s | %d | %d | %d | %d | %d | %d | %v\n", key, r.runs, r.held, r.again, r.kills, r.ended, r.unharmed, r.calls)
	}
	return b.String()
}

// holdOne takes one kind of allocator through a hold, more room, a second hold
// and a kill. Where memory is taken inside system calls these fail at the
// limit, and a program may end by itself of that: it is said, and no kernel
// kill. A kernel kill is a failure if strict.
func holdOne(t *testing.T, kind string, threads int, o cgroup.ArmOptions, strict bool) outcome {
	const limit = 256 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	c, err := g.Get(group.Path)
	must(t, err)
	_, err = c.Arm(t.Context(), o)
	must(t, err)
	args := []string{"--kind", kind, "--threads", fmt.Sprint(threads), "--dir", t.TempDir()}
	faults := slices.Contains([]string{"anon", "thp", "shm"}, kind)
	if faults {
		args = append(args, "--verify")
	}
	l := startLeak(t, group, args...)
	tellIfFailed(t, group, c, l)
	res := outcome{calls: map[string]bool{}}
	took, ok := g.hold(c, l)
	held := l.report()
	if res.held = ok; ok {
		checkHeld(t, group, l, limit)
		must(t, c.Borrow(t.Context(), limit/4))
		g.forget() // the limit may be hit more than once before the freeze
		must(t, c.Thaw(t.Context()))
		if _, ok = g.hold(c, l); ok {
			checkHeld(t, group, l, limit+limit/4)
		}
		res.again = ok
	}
	more := l.report()
	switch {
	case !ok && faults && strict:
		t.Errorf("it ended: %v", l.ProcessState)
	case !ok:
		t.Logf("ended at the limit: %v", l.ProcessState)
	case faults && (more.Pages <= held.Pages || more.Mismatches != 0):
		t.Errorf("after the raise: %d pages, before %d; %d changed", more.Pages, held.Pages, more.Mismatches)
	}
	t.Logf("trigger to frozen %v; errors %v, short %v", took.Round(100*time.Microsecond), more.Errors, more.Shorts)
	for _, calls := range []map[string]uint64{more.Errors, more.Shorts} {
		for name := range calls {
			res.calls[name] = true
		}
	}
	if res.kills = group.Kills(); res.kills != 0 && strict {
		t.Errorf("the kernel killed %d", res.kills)
	}
	must(t, c.Kill(t.Context()))
	<-l.end
	must(t, c.Disarm(t.Context()))
	checkUntouched(t, group, limit)
	if strict {
		g.no(cgroup.EventEscape)
	}
	return res
}

// hold waits for the limit and freezes; false if the program ended before.
func (g *guard) hold(c cgroup.Cgroup, l *leak) (took time.Duration, ok bool) {
	g.t.Helper()
	late := time.After(testkit.Patience)
	for {
		select {
		case e := <-g.events:
			if e.Kind != cgroup.EventLimit || e.Cgroup != c {
				continue
			}
			must(g.t, c.Freeze(g.t.Context()))
			return time.Since(e.At), l.alive()
		case <-l.end:
			return 0, false
		case <-late:
			g.t.Fatalf("the limit of %s is not seen", c.Path())
		}
	}
}

// tellIfFailed writes down what the kernel shows at the end of a failed test.
func tellIfFailed(t *testing.T, group *testkit.Group, c cgroup.Cgroup, l *leak) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		t.Logf("status %+v; current %d, high %s, max %s; events %s; record %s; %s", c.Status(), group.Usage(),
			group.Read("memory.high"), group.Read("memory.max"), group.Read("memory.events"), group.Record(), l.report())
		for _, pid := range group.Pids() {
			t.Logf("process %d has oom_score_adj %d", pid, score(t, pid))
		}
	})
}

// checkHeld checks that the group stands still and nothing was killed.
func checkHeld(t *testing.T, group *testkit.Group, l *leak, limit uint64) {
	t.Helper()
	if !group.Frozen() || !l.alive() || group.Kills() != 0 {
		t.Errorf("frozen %v, alive %v, kernel kills %d", group.Frozen(), l.alive(), group.Kills())
	}
	if _, err := os.Stat(filepath.Join(group.Dir(), "memory.peak")); err == nil {
		// The kernel itself charges a page beyond the limit when reclaim needs
		// one to get on, with or without us.
		if peak := group.Number("memory.peak"); peak > limit+16*4096 {
			t.Errorf("memory.peak %d is above the limit %d", peak, limit)
		}
	}
}

// checkUntouched checks that nothing of ours is left on the directory.
func checkUntouched(t *testing.T, group *testkit.Group, limit uint64) {
	t.Helper()
	for name, want := range map[string]string{
		"memory.max": fmt.Sprint(limit), "memory.high": "max", "memory.oom.group": "0", "cgroup.freeze": "0",
	} {
		if got := group.Read(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if r := group.Record(); r != "" {
		t.Errorf("an undo record is left: %s", r)
	}
}
