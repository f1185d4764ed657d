package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/klauspost/compress/zstd"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/policy"
	"github.com/arbiterd/arbiter/tests/jvmkit"
	"github.com/arbiterd/arbiter/tests/testkit"
)

// A heldCase does with a real cgroup what the engine does around a step.
type heldCase struct {
	*testEnv
	t      testing.TB
	group  *testkit.Group
	real   cgroup.Cgroup
	events chan cgroup.Event
	mu     sync.Mutex
	peak   uint64 // of borrowed bytes
}

// newHeldCase arms a fresh cgroup with a limit.
func newHeldCase(t testing.TB, limit uint64) *heldCase {
	t.Helper()
	testkit.Need(t, testkit.Memory)
	h := &heldCase{testEnv: newTestEnv(t), t: t, events: make(chan cgroup.Event, 1024)}
	h.group = testkit.Tree(t, testkit.Options{Limit: limit})
	fs, err := cgroup.Open("/sys/fs/cgroup", hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	fs.Handle(func(e cgroup.Event) {
		select {
		case h.events <- e:
		default:
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- fs.Run(ctx) }()
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		cancel()
		<-ended
	})
	if h.real, err = fs.Get(h.group.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := h.real.Arm(t.Context(), cgroup.ArmOptions{Hold: true}); err != nil {
		t.Fatal(err)
	}
	h.Cgroup = h.real
	h.Facts.Limit = policy.LimitOf(limit)
	h.Borrow = h.borrow
	return h
}

func (h *heldCase) borrow(ctx context.Context, bytes uint64) error {
	h.mu.Lock()
	h.peak = max(h.peak, bytes)
	h.mu.Unlock()
	return h.real.Borrow(ctx, bytes)
}

// hold waits for the limit and freezes.
func (h *heldCase) hold() {
	h.t.Helper()
	late := time.After(jvmkit.Patience)
	for {
		select {
		case e := <-h.events:
			if e.Kind != cgroup.EventLimit {
				continue
			}
			if err := h.real.Freeze(h.t.Context()); err != nil {
				h.t.Fatal(err)
			}
			return
		case <-late:
			h.t.Fatal("the limit was never reached")
		}
	}
}

// running runs an action as the engine does: raise, thaw, run, freeze,
// restore. A limit that is reached again freezes at once and cancels.
func (h *heldCase) running(act Action, first uint64) (Result, error) {
	h.t.Helper()
	ctx, cancel := context.WithCancelCause(h.t.Context())
	defer cancel(nil)
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	must(h.borrow(ctx, first))
	for len(h.events) > 0 {
		<-h.events // of before
	}
	h.t.Logf("thaw at %s", time.Now().Format("05.000"))
	must(h.real.Thaw(ctx))
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case e := <-h.events:
				if e.Kind != cgroup.EventLimit {
					continue
				}
				if err := h.real.Freeze(h.t.Context()); err == nil {
					cancel(fmt.Errorf("%w: %s at %s", errLimitAgain, e.Why, e.At.Format("05.000")))
				}
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	res, err := act.Run(ctx, h.Env)
	if context.Cause(ctx) != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	cancel(nil)
	<-over
	must(h.real.Freeze(h.t.Context()))
	if err := h.real.Restore(h.t.Context()); err != nil && !errors.Is(err, cgroup.ErrUsage) {
		h.t.Fatal(err)
	}
	return res, err
}

var errLimitAgain = errors.New("the raised limit was reached as well")

// heapIn walks an artifact of the test.
func (h *heldCase) heapIn(name string) (jvm.Heap, error) {
	f, err := os.Open(filepath.Join(h.files.dir, name))
	if err != nil {
		return jvm.Heap{}, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return jvm.Heap{}, err
	}
	defer z.Close()
	return jvm.WalkHeap(z)
}

// findHeap is the heap dump among the artifacts.
func (h *heldCase) findHeap() (jvm.Heap, error) {
	for _, name := range h.files.names(h.t) {
		if strings.HasSuffix(name, ".hprof.zst") {
			return h.heapIn(name)
		}
	}
	return jvm.Heap{}, errors.New("no heap dump")
}

// leaks tells whether a dump names the class that leaks.
func leaks(h jvm.Heap) bool {
	for _, c := range h.Classes[:min(5, len(h.Classes))] {
		if c.Name == "Leak$Node" && c.Instances > 50*64 {
			return h.Classes[0].Name == "byte[]"
		}
	}
	return false
}

// heldLeaker is a JVM that leaks past 256 MiB of container with a heap of
// 1 GiB, in namespaces of its own, held at its limit.
func heldLeaker(t testing.TB, home, gc string) (*heldCase, *jvmkit.Container) {
	t.Helper()
	h := newHeldCase(t, 256<<20)
	c := jvmkit.LeakerAtOnce(t, home, jvmkit.Options{UserNS: true, Place: h.group.Place},
		[]string{"-Xmx1g", "-XX:+Use" + gc + "GC"}, "120", "40")
	h.killFirst()
	h.hold()
	return h, c
}

// BenchmarkKernelHeapDumpAtLimit is the experiment behind the figures of the
// documentation: go test -run - -bench AtLimit -benchtime 20x
func BenchmarkKernelHeapDumpAtLimit(b *testing.B) {
	for name, home := range jvmkit.JDKs(b) {
		for _, gc := range []string{"Serial", "Parallel", "G1"} {
			b.Run(name+"/"+gc, func(b *testing.B) {
				var valid, lent int
				var took time.Duration
				for range b.N {
					h, c := heldLeaker(b, home, gc)
					begun := time.Now()
					_, err := h.running(newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "attach"}), 64<<20)
					took += time.Since(begun)
					heap, walk := h.findHeap()
					ok := err == nil && walk == nil && leaks(heap) && h.group.Kills() == 0 && len(c.Leftovers(b)) == 0
					if ok {
						valid++
					}
					lent += int(h.peak >> 20)
					b.Logf("valid %v, lent %d MiB, peak %d MiB, took %v, %v", ok, h.peak>>20,
						h.group.Peak()>>20, time.Since(begun).Round(time.Millisecond), err)
					if err := h.real.Kill(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(valid)/float64(b.N), "valid/op")
				b.ReportMetric(float64(lent)/float64(b.N), "lentMiB/op")
				b.ReportMetric(took.Seconds()/float64(b.N), "s/op")
			})
		}
	}
}

// killFirst kills the container when the test ends, before anything else is
// cleaned up: what is frozen cannot be killed from outside. It is called when
// the container was started.
func (h *heldCase) killFirst() {
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), jvmkit.Patience)
		defer cancel()
		if err := h.real.Kill(ctx); err != nil && !errors.Is(err, cgroup.ErrGone) {
			h.t.Errorf("kill: %v", err)
		}
	})
}

// One dump of each collector. Attempts are allowed for: near the limit one in
// ten may fail, and says so.
func TestKernelHeapDumpAtLimit(t *testing.T) {
	for name, home := range jvmkit.JDKs(t) {
		for _, gc := range []string{"Serial", "Parallel", "G1"} {
			t.Run(name+"/"+gc, func(t *testing.T) {
				for attempt := 1; ; attempt++ {
					h, c := heldLeaker(t, home, gc)
					res, err := h.running(newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "attach"}), 64<<20)
					if err != nil && attempt < 3 {
						t.Logf("attempt %d: %v", attempt, err)
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					if heap, err := h.findHeap(); err != nil || !leaks(heap) {
						t.Errorf("%v, top classes: %v", err, heap.Classes[:min(5, len(heap.Classes))])
					}
					if !strings.Contains(res.Summary, "byte[]") {
						t.Errorf("summary %q", res.Summary)
					}
					if peak := h.group.Peak(); peak > 256<<20+h.peak+16*4096 {
						t.Errorf("%d bytes charged, %d lent", peak, h.peak)
					}
					if h.group.Kills() > 0 {
						t.Error("the kernel killed")
					}
					if left := c.Leftovers(t); len(left) > 0 {
						t.Errorf("left behind: %q", left)
					}
					break
				}
			})
		}
	}
}
