package action

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
	"github.com/arbiterd/arbiter/tests/jvmkit"
)

// stepTime bounds what an engine would bound by a step's timeout.
const stepTime = 2 * time.Minute

// From a core the JVM's heap is had without the JVM ever running again, and
// after it is gone.
func TestKernelHeapDumpViaCore(t *testing.T) {
	for name, home := range jvmkit.JDKs(t) {
		t.Run(name, func(t *testing.T) {
			h, c := heldLeaker(t, home, "G1")
			before := userTime(t, c.Pid)
			act := newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "core"})
			act.Core.Compress = false // the test keeps no case on disk
			if act.Needs() != policy.Frozen {
				t.Fatalf("it needs %s", act.Needs())
			}
			ctx, cancel := context.WithTimeout(t.Context(), stepTime)
			defer cancel()
			res, err := act.Run(ctx, h.Env)
			if err != nil {
				t.Fatal(err)
			}
			if !h.group.Frozen() {
				t.Error("it does not stand still")
			}
			if after := userTime(t, c.Pid); after != before {
				t.Errorf("it ran: %s ticks, %s before", after, before)
			}
			if h.peak > 0 {
				t.Errorf("%d bytes lent", h.peak)
			}
			h.converted(c, res)
		})
	}
}

// converted kills the container and converts its core.
func (h *heldCase) converted(c *jvmkit.Container, res Result) {
	h.t.Helper()
	if res.Details["convert-missing"] != "" || len(res.After) != 1 {
		h.t.Fatalf("no conversion: %+v", res)
	}
	if err := h.real.Kill(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	if left := c.Leftovers(h.t); len(left) > 0 {
		h.t.Errorf("left behind: %q", left)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*stepTime)
	defer cancel()
	if _, err := res.After[0](ctx); errors.Is(err, jvm.ErrNoJDK) {
		h.t.Skip("not installed: jhsdb of the same JDK")
	} else if err != nil {
		h.t.Fatal(err)
	}
	if heap, err := h.findHeap(); err != nil || !leaks(heap) {
		h.t.Errorf("%v, top classes: %v", err, heap.Classes[:min(5, len(heap.Classes))])
	}
}

// A JVM that cannot be attached to gives a core, with the reason.
func TestKernelHeapDumpFallsBack(t *testing.T) {
	h := newHeldCase(t, 256<<20)
	c := jvmkit.LeakerAtOnce(t, jvmkit.JDK(t), jvmkit.Options{Place: h.group.Place},
		[]string{"-Xmx1g", "-XX:+UseSerialGC", "-XX:+DisableAttachMechanism"}, "150", "4")
	h.killFirst()
	h.hold()
	act := newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "auto"})
	act.Core.Compress = false
	res, err := h.running(act, 192<<20) // it leaks on while the attach waits
	if err != nil {
		t.Fatal(err)
	}
	if why := res.Details["core-because"]; !strings.Contains(why, "DisableAttachMechanism") || !strings.HasPrefix(res.Summary, "core, because") {
		t.Errorf("the reason: %q, summary %q", why, res.Summary)
	}
	if !h.group.Frozen() {
		t.Error("it does not stand still")
	}
	h.converted(c, res)
}

// Python and whatever has no dump of its own: a core, and how to open it.
func TestKernelHeapDumpOfPython(t *testing.T) {
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("not installed: python3")
	}
	h := newHeldCase(t, 64<<20)
	c := jvmkit.Start(t, jvmkit.Options{Place: h.group.Place}, "/usr/bin/python3", "-c",
		"import time\nheld = []\nwhile True: held.append(b'x' * 1048576); time.sleep(0.005)")
	h.killFirst()
	h.hold()
	act := newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "auto"})
	act.Core.Compress = false
	res, err := h.running(act, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	if res.Details["runtime"] != string(proc.Python) || !strings.Contains(res.Details["open-"+itoa(c.Pid)], "gdb") {
		t.Errorf("details %v", res.Details)
	}
}

// userTime is how long the process has run code of its own, in ticks: field 14
// of proc_pid_stat(5).
func userTime(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(proc.FS("/proc").Path(pid, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')'):]))[12]
}
