package cgroup_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// A guarded hog takes all of the node's memory. With the guards dropped when
// memory runs low, the node's own out-of-memory killer finds it: no bystander
// dies, and the kernel does not panic for want of anybody to kill.
func TestKernelV2NodeRunsOut(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	if os.Getenv("GUEST_KERNEL") == "" {
		t.Skip("needs kernel feature: a whole machine of the test's own")
	}
	bystander := testkit.Tree(t, testkit.Options{}).Start(testkit.Load{Kind: testkit.Anon, Ceiling: 30 * mib})
	testkit.Eventually(t, "the bystander has its memory", bystander.Done)
	total, _ := meminfo(t)
	group := testkit.Tree(t, testkit.Options{Limit: total * 2})
	g := newGuard(t)
	g.armWith(group, cgroup.ArmOptions{Hold: true, AlwaysGuard: true})
	l := startLeak(t, group, "--kind", "thp", "--block", "8MiB", "--threads", "2")
	testkit.Eventually(t, "it is guarded", func() bool { return score(t, l.Process.Pid) == -1000 })
	end := time.After(2 * time.Minute)
	dropped := false
	for l.alive() {
		select {
		case <-end:
			t.Fatal("the hog is not killed")
		case <-time.After(10 * time.Millisecond):
		}
		if _, available := meminfo(t); !dropped && available < max(total/20, 256*mib) {
			must(t, g.DropGuards(t.Context()))
			dropped = true
		}
	}
	if !dropped {
		t.Fatal("it ended before the node ran low: ", l.ProcessState)
	}
	if group.Kills() == 0 {
		t.Errorf("it was not the kernel that ended it: %v", l.ProcessState)
	}
	if bystander.Exited() {
		t.Error("the bystander was killed")
	}
	g.AllowGuards()
}

// meminfo reads MemTotal and MemAvailable in bytes.
func meminfo(t *testing.T) (total, available uint64) {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		n, _ := strconv.ParseUint(f[1], 10, 64)
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	return total, available
}
