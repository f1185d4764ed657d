package cgroup_test

import (
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// swapOn switches the guest's swap device on until the test ends.
func swapOn(t *testing.T) {
	t.Helper()
	device := os.Getenv("GUEST_SWAP")
	if device == "" {
		t.Skip("needs kernel feature: a swap device of the test's own")
	}
	path, err := unix.BytePtrFromString(device)
	must(t, err)
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
		t.Fatalf("swapon %s: %v", device, errno)
	}
	t.Cleanup(func() {
		if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(path)), 0, 0); errno != 0 {
			t.Errorf("swapoff %s: %v", device, errno)
		}
	})
}

// A container with swap thrashes instead of reaching its limit: pressure tells,
// it is held, and the verdict kills it although it could be swapped out.
func TestKernelV2SwapThrash(t *testing.T) {
	testkit.Need(t, testkit.V2Memory, testkit.SysResource)
	swapOn(t)
	const limit = 64 * mib
	group := testkit.Tree(t, testkit.Options{Limit: limit})
	g := newGuard(t)
	c, err := g.Get(group.Path)
	must(t, err)
	st, err := c.Arm(t.Context(), cgroup.ArmOptions{Hold: true, PressurePercent: 10, PressureOver: 2 * time.Second})
	must(t, err)
	if len(st.Missing) == 0 {
		t.Error("it does not say that it may swap")
	}
	l := startLeak(t, group, "--kind", "anon", "--ceiling", "120MiB", "--verify")
	tellIfFailed(t, group, c, l)
	e := g.await(cgroup.EventPressure, c)
	t.Logf("%s; usage %d MiB, swap %d MiB", e.Why, e.Usage.Current/mib, e.Usage.Swap/mib)
	if e.Usage.Swap == 0 {
		t.Error("no swap is used")
	}
	must(t, c.Freeze(t.Context()))
	if !group.Frozen() || group.Kills() != 0 {
		t.Errorf("frozen %v, kernel kills %d", group.Frozen(), group.Kills())
	}
	must(t, c.Kill(t.Context()))
	<-l.end
	if group.Kills() == 0 {
		t.Error("it was not the kernel that killed")
	}
	if got := group.Read("memory.swap.max"); got != "max" {
		t.Errorf("memory.swap.max %s after", got)
	}
	must(t, c.Disarm(t.Context()))
	checkUntouched(t, group, limit)
}
