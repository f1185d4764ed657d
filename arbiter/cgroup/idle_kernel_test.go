package cgroup_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// Hundreds of quiet armed containers cost next to nothing, on both versions.
func TestKernelIdleCost(t *testing.T) {
	testkit.Need(t, testkit.Memory)
	const groups, seconds = 150, 15
	g := newGuard(t)
	tree := testkit.Tree(t, testkit.Options{})
	for i := range groups {
		group := tree.Child(fmt.Sprint("c", i), testkit.Options{Limit: 64 * mib})
		if group.Version() == 2 {
			group.Start(testkit.Load{Kind: testkit.Sleep}) // an empty one is looked at more often
		}
		c, err := g.Get(group.Path)
		must(t, err)
		_, err = c.Arm(t.Context(), cgroup.ArmOptions{Hold: true, Sample: true})
		must(t, err)
	}
	time.Sleep(12 * time.Second) // the first looks are full ones
	before := cpuTime(t)
	time.Sleep(seconds * time.Second)
	used := cpuTime(t) - before
	t.Logf("%d armed cgroups: %.2f%% of a core", groups, used.Seconds()/seconds*100)
	if used > seconds*time.Second/2 {
		t.Errorf("%v of processor time in %d s", used, seconds)
	}
}

// cpuTime is what this process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var r unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
