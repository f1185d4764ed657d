package dump

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKernelHeldAtLimit(t *testing.T) {
	h := holdAtLimit(t, 64<<20, os.Args[0], "target", "memory")
	before := h.count(t)
	for range 3 {
		report, name, err := h.dump(t, h.hold())
		if err != nil {
			t.Fatal(err)
		}
		core := report.Cores[0]
		t.Logf("cgroup v%d: %d bytes in %v, traced for %v, thawed for %v, helper lacks %q", h.version, core.Data, core.Elapsed, report.Stopped, report.Thawed, report.Missing)
		if core.Error != "" || len(core.Missing) > 0 || core.Registers != "ptrace" || core.Threads < 5 {
			t.Errorf("core %+v", core)
		}
		h.compare(t, name)
		if !h.frozen(t) {
			t.Error("the container did not stay frozen")
		}
	}
	if after := h.count(t); after != before {
		t.Errorf("the target ran: it touched %d pages", after-before)
	}
	if n, err := h.cg.Counters(); err != nil || n.OOMKill != 0 {
		t.Errorf("the kernel killed %d processes (%v)", n.OOMKill, err)
	}
}

// Whoever else is in the container must not run while the freezer is open: it
// is trapped as well, or, if it came too late for that, the freezer stays shut.
func TestKernelHeldOthersStandStill(t *testing.T) {
	counter := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(counter, make([]byte, pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	// Before the hold: what is frozen cannot be waited for, so the other one's
	// cleanup must follow that of the hold.
	other := startTarget(t, "spin", counter)
	h := holdAtLimit(t, 64<<20, os.Args[0], "target", "memory")
	for _, dir := range h.dirs { // a task that joins a frozen cgroup freezes
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(other.pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "frozen", func() bool { return h.frozen(t) })
	before := countIn(t, counter)
	report, name := h.dumpWith(t, func(r *Request) { r.Held = append(r.Held, other.process(t)) })
	if core := report.Cores[0]; core.Error != "" || core.Registers != "ptrace" || len(report.Cores) != 1 {
		t.Errorf("core %+v", core)
	}
	h.compare(t, name)
	if after := countIn(t, counter); after != before {
		t.Errorf("the other process counted %d while the freezer was open", after-before)
	}
	report, _ = h.dumpWith(t, nil) // nobody told of the other one
	if h.version == 1 && !strings.Contains(report.Untraced, "joined the container") {
		t.Errorf("untraced %q", report.Untraced)
	}
	if after := countIn(t, counter); after != before || !h.frozen(t) {
		t.Errorf("the other process counted %d, unknown; frozen %t", after-before, h.frozen(t))
	}
}

// A helper that dies while the freezer is open lets the threads go: they must
// stand still again at once.
func TestKernelHeldHelperKilled(t *testing.T) {
	h := holdAtLimit(t, 64<<20, os.Args[0], "target", "memory")
	for _, when := range []string{"thawed", "trapped"} {
		t.Run(when, func(t *testing.T) {
			hold := h.hold()
			trap := hold.Trap
			hold.Trap = func(ctx context.Context, wait func(context.Context) error) error {
				killing := func(ctx context.Context) error {
					if when == "thawed" {
						killTracer(t, h.pid)
					}
					err := wait(ctx)
					if when == "trapped" {
						killTracer(t, h.pid)
					}
					return err
				}
				if trap == nil {
					return killing(ctx)
				}
				return trap(ctx, killing)
			}
			if _, _, err := h.dump(t, hold); err == nil {
				t.Error("a killed helper is no error")
			}
			if !h.frozen(t) {
				t.Error("the container is not frozen")
			}
			before := h.count(t)
			report, name, err := h.dump(t, h.hold())
			if err != nil || report.Cores[0].Error != "" {
				t.Fatalf("a dump after that: %v, %+v", err, report)
			}
			h.compare(t, name)
			if after := h.count(t); after != before {
				t.Errorf("the target ran: it touched %d pages", after-before)
			}
		})
	}
}

// killTracer kills the helper that traces a process.
func killTracer(t testing.TB, pid int) {
	t.Helper()
	status, err := processDir(pid).read("status")
	if err != nil {
		t.Error(err)
		return
	}
	tracer, err := strconv.Atoi(statusField(status, "TracerPid"))
	if err != nil || tracer == 0 {
		t.Errorf("process %d is not traced (%v)", pid, err)
		return
	}
	_ = unix.Kill(tracer, unix.SIGKILL)
	eventually(t, "untraced", func() bool {
		status, _ := processDir(pid).read("status")
		return statusField(status, "TracerPid") == "0"
	})
}

// With a debugger attached the freezer stays shut: to open it would let the
// threads run that nobody of ours holds.
func TestKernelHeldTracedByAnother(t *testing.T) {
	h := holdAtLimit(t, 64<<20, os.Args[0], "target", "memory")
	defer traceFromAnotherThread(t, h.pid)()
	before := h.count(t)
	report, name, err := h.dump(t, h.hold())
	if err != nil {
		t.Fatal(err)
	}
	core := report.Cores[0]
	if core.Error != "" || core.Registers != "syscall" || len(core.Missing) == 0 || report.Thawed != 0 && h.version == 1 {
		t.Errorf("core %+v, thawed for %v", core, report.Thawed)
	}
	h.compare(t, name)
	if after := h.count(t); after != before || !h.frozen(t) {
		t.Errorf("the target touched %d pages; frozen %t", after-before, h.frozen(t))
	}
}
