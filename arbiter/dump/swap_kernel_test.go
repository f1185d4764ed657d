package dump

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/tests/testkit"
)

// A swapped page that is read comes back and is charged. Where the container
// has no room for that they are left out, and the core says so; with room lent
// they are all there.
func TestKernelSwappedAtLimit(t *testing.T) {
	testkit.Need(t, testkit.V2Memory)
	swapOn(t)
	h := holdAtLimit(t, 64<<20, os.Args[0], "target", "memory")
	before, err := h.cg.Usage()
	if err != nil || before.Swap == 0 {
		t.Fatalf("nothing was swapped: %+v, %v", before, err)
	}
	// The limit is where usage is: not a page fits.
	report, name := h.dumpWith(t, func(r *Request) { r.SkipSwapped = true })
	core := report.Cores[0]
	if all := strings.Join(core.Missing, "\n"); core.Error != "" || !strings.Contains(all, "bytes in swap") {
		t.Errorf("core %+v", core)
	}
	if _, missing := notes(t, openCore(t, name)); !strings.Contains(missing, "bytes in swap") {
		t.Errorf("the core says %q", missing)
	}
	after, err := h.cg.Usage()
	if err != nil || after.Swap < before.Swap {
		t.Errorf("swap went from %d to %d: pages were brought back (%v)", before.Swap, after.Swap, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.cg.Borrow(ctx, before.Swap+8<<20); err != nil {
		t.Fatal(err)
	}
	report, name = h.dumpWith(t, nil)
	if core := report.Cores[0]; core.Error != "" || len(core.Missing) > 0 {
		t.Errorf("core with room %+v", core)
	}
	h.compare(t, name)
	if n, err := h.cg.Counters(); err != nil || n.OOMKill != 0 || !h.frozen(t) {
		t.Errorf("the kernel killed %d processes (%v); frozen %t", n.OOMKill, err, h.frozen(t))
	}
}

// swapOn gives the guest swap for a test. It leaves a machine that tests do not
// own alone: GUEST_SWAP names the guest's device.
func swapOn(t *testing.T) {
	t.Helper()
	device := os.Getenv("GUEST_SWAP")
	if device == "" {
		t.Skip("needs kernel feature: a swap device of the test's own")
	}
	name, err := unix.BytePtrFromString(device)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
		t.Fatalf("swapon %s: %v", strconv.Quote(device), errno)
	}
	t.Cleanup(func() {
		if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
			t.Errorf("swapoff: %v", errno)
		}
	})
}
