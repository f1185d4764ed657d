package cgroup_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/cmd/memleak/progress"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// From the last page that fitted to all standing still, beside the least that
// the kernel itself takes for it: a poll that wakes and a write. The two take
// turns in one boot, so that a busy machine slows both.
func TestKernelV2TriggerToFrozen(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	const limit, rounds = 64 * mib, 15
	var ours, floor []time.Duration
	for range rounds {
		ours = append(ours, timeOurs(t, limit))
		floor = append(floor, timeFloor(t, limit))
	}
	t.Logf("ours:  %s", histogram(ours))
	t.Logf("floor: %s", histogram(floor))
	if m, f := median(ours), median(floor); m > 10*f+50*time.Millisecond {
		t.Errorf("median %v, floor %v", m, f)
	}
}

func timeOurs(t *testing.T, limit uint64) time.Duration {
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	c := g.arm(group)
	frozen := uint64(0)
	g.OnChange = func(stage, _ string) {
		if stage == "frozen" {
			frozen = progress.Now()
		}
	}
	l := startLeak(t, group)
	if _, ok := g.hold(c, l); !ok {
		t.Fatal("it ended")
	}
	took := time.Duration(frozen - l.report().LastTouch)
	must(t, c.Kill(t.Context()))
	<-l.end
	must(t, c.Disarm(t.Context()))
	return took
}

// timeFloor does the same with bare system calls and everything prepared.
func timeFloor(t *testing.T, limit uint64) time.Duration {
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	open := func(name string, flags int) *os.File {
		f, err := os.OpenFile(filepath.Join(group.Dir(), name), flags, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	events, state, freeze := open("memory.events", os.O_RDONLY), open("cgroup.events", os.O_RDONLY), open("cgroup.freeze", os.O_RDWR)
	l := startLeak(t, group, "--wait")
	setScore(t, l.Process.Pid, -1000)
	await := func(f *os.File, sign string) {
		b := make([]byte, 512)
		for {
			n, _ := f.ReadAt(b, 0)
			if strings.Contains(string(b[:n]), sign) {
				return
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, 1000)
		}
	}
	oom := func() bool { return group.Key("memory.events", "oom") > 0 }
	b := make([]byte, 512)
	for !oom() {
		_, _ = events.ReadAt(b, 0)
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, 1000)
	}
	_, err := freeze.WriteString("1")
	must(t, err)
	await(state, "frozen 1")
	frozen := progress.Now()
	return time.Duration(frozen - l.report().LastTouch)
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

func histogram(d []time.Duration) string {
	s := slices.Sorted(slices.Values(d))
	q := func(p int) time.Duration { return s[(len(s)-1)*p/100].Round(100 * time.Microsecond) }
	return fmt.Sprintf("min %v, 25%% %v, median %v, 75%% %v, 90%% %v, max %v", q(0), q(25), q(50), q(75), q(90), q(100))
}
