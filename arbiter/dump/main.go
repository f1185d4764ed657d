package dump

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// overtime is what the helper has to finish its files when its time is over.
const overtime = 5 * time.Second

// A helper is the process that stops, reads and writes.
type helper struct {
	req    Request
	orders *json.Decoder
	out    io.Writer
	mu     sync.Mutex // of out
	tracer tracer
	report Report

	untraced map[int]error // why a process could not be seized, by pid
	since    time.Time     // when the first thread was seized
}

// Main is the helper process: `arbiterd dump PARENT`, where PARENT is the pid
// of the daemon that started it. It speaks JSON lines on stdin and stdout and
// returns the exit status. It is not for people to run: see Helper.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) int {
	h := &helper{out: stdout, tracer: tracer{threads: map[int]*thread{}}}
	if err := h.run(ctx, args, stdin); err != nil {
		h.send(message{Error: err.Error()})
		return 1
	}
	return 0
}

func (h *helper) run(ctx context.Context, args []string, stdin io.Reader) error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("core dumps on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	// The parent may have died before the death signal was set.
	if len(args) != 1 || args[0] != strconv.Itoa(os.Getppid()) {
		return errors.New("usage: arbiterd dump PARENT-PID (the daemon starts it)")
	}
	signal.Ignore(unix.SIGXFSZ) // a file size limit is an error of write, too
	h.orders = json.NewDecoder(stdin)
	if err := h.orders.Decode(&h.req); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if h.req.Filter == 0 {
		h.req.Filter = DefaultFilter
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.req.Within, fmt.Errorf("the time of %v for the dump is over", h.req.Within))
	defer cancel()
	// If memory or disk keep the helper from noticing that its time is over.
	defer time.AfterFunc(h.req.Within+overtime, func() { os.Exit(1) }).Stop()
	runtime.LockOSThread() // to the kernel the tracer is this thread
	defer h.tracer.detach()
	if err := h.stop(ctx); err != nil {
		return err
	}
	images := h.images(ctx)
	h.save(ctx, images)
	h.tracer.detach()
	h.report.Stopped = time.Since(h.since)
	h.send(message{Report: &h.report})
	return nil
}

// stop brings every thread of the container to a stand, together with the
// daemon: seize, open the freezer, wait for the traps, close the freezer.
func (h *helper) stop(ctx context.Context) error {
	h.since = time.Now()
	h.seizeAll()
	h.send(message{Seized: true, Untraced: h.whyUntraced()})
	o, err := h.order()
	if err != nil {
		return err
	}
	if h.report.Untraced = o.Untraced; o.Untraced != "" {
		return nil
	}
	h.tracer.seizeDeferred()
	wctx, cancel := context.WithTimeout(ctx, h.req.TrapWithin)
	blocked := h.tracer.wait(wctx)
	cancel()
	h.send(message{Trapped: true, Blocked: blocked})
	if _, err := h.order(); err != nil {
		return err
	}
	// Some may have trapped on their way back into the freezer.
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	h.tracer.wait(cancelled)
	return nil
}

// seizeAll seizes the threads of all processes that are still the same.
func (h *helper) seizeAll() {
	h.untraced = map[int]error{}
	h.req.Held = slices.DeleteFunc(h.req.Held, func(p Process) bool {
		err := h.tracer.seize(p.Pid, true)
		// Looked at behind the seizing: from here on the pid cannot be reused.
		if start, serr := StartTime(p.Pid); serr != nil || start != p.Start {
			h.tracer.forget(p.Pid)
			return true
		}
		if err != nil && !errors.Is(err, ErrGone) {
			h.untraced[p.Pid] = err
		}
		return errors.Is(err, ErrGone)
	})
}

// whyUntraced tells of one process that could not be seized.
func (h *helper) whyUntraced() string {
	for _, p := range h.req.Held {
		if err := h.untraced[p.Pid]; err != nil {
			return fmt.Sprintf("process %d: %v", p.Pid, err)
		}
	}
	return ""
}

func (h *helper) order() (order, error) {
	var o order
	err := h.orders.Decode(&o)
	if err != nil {
		err = fmt.Errorf("read order: %w", err) // the daemon is gone
	}
	return o, err
}

// images takes the image of every target before any memory is written: the
// registers, mappings and page tables of one instant.
func (h *helper) images(ctx context.Context) []*image {
	h.report.Cores = make([]Core, len(h.req.Targets))
	images := make([]*image, len(h.req.Targets))
	for i, t := range h.req.Targets {
		core := &h.report.Cores[i]
		core.Pid = t.Pid
		if !slices.ContainsFunc(h.req.Held, func(p Process) bool { return p.Pid == t.Pid }) {
			core.fail(fmt.Errorf("process %d: %w", t.Pid, ErrGone))
			continue
		}
		im, err := h.image(ctx, t.Pid, core)
		if err != nil {
			core.fail(err)
			continue
		}
		images[i] = im
	}
	return images
}

func (h *helper) image(ctx context.Context, pid int, core *Core) (*image, error) {
	list, untraced := h.tracer.of(pid), h.report.Untraced
	if err := h.untraced[pid]; err != nil {
		untraced = err.Error()
	}
	if untraced != "" {
		list = untracedThreads(pid)
	}
	threads, how, missed := registersOf(list)
	if len(threads) == 0 {
		return nil, fmt.Errorf("process %d: %w: no thread is left (%v)", pid, ErrGone, missed.all())
	}
	im, err := take(ctx, pid, threads, taking{h.req.Filter, h.req.SkipSwapped})
	if err != nil {
		return nil, err
	}
	im.missing.list = append(missed.list, im.missing.list...)
	if untraced != "" {
		im.missing.add("most registers: the process could not be traced: %s", untraced)
	}
	if im.swapped > 0 && h.req.SkipSwapped {
		im.missing.add("%d bytes in swap: the container has no room to bring them back", im.swapped)
	}
	core.InnerPid, core.Comm = threads[0].who.id, threads[0].who.Comm
	if s, err := im.dir.stat(); err == nil {
		core.Comm = s.Comm // of the process, though its main thread may be gone
	}
	core.Exe, _ = os.Readlink(im.dir.path("exe")) // a kernel thread has none
	core.Threads, core.Registers, core.Segments = len(threads), how, len(im.segments)
	return im, nil
}

// save writes the cores one after the other.
func (h *helper) save(ctx context.Context, images []*image) {
	var written atomic.Uint64
	defer h.tell(&written, images)()
	for i, im := range images {
		if im == nil {
			continue
		}
		core, started := &h.report.Cores[i], time.Now()
		if h.req.MaxBytes > 0 {
			im.cut(max(h.req.MaxBytes, written.Load()+1) - written.Load())
		}
		before := written.Load()
		out := os.NewFile(uintptr(h.req.Targets[i].FD), "core")
		size, err := im.save(ctx, out, h.req.MinFree, &written)
		if err != nil {
			core.fail(err)
		}
		core.Data, core.FileSize, core.Missing = written.Load()-before, size, im.missing.all()
		core.Elapsed = time.Since(started)
		im.close()
	}
}

// tell reports progress four times a second until the returned function is
// called.
func (h *helper) tell(written *atomic.Uint64, images []*image) (stop func()) {
	total := uint64(0)
	for _, im := range images {
		if im != nil {
			total += im.data
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				h.send(message{Progress: &progress{written.Load(), total}})
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// send writes one line. If nobody reads, standard input ends as well.
func (h *helper) send(m message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = json.NewEncoder(h.out).Encode(m)
}

func (c *Core) fail(err error) { c.Error, c.Gone = err.Error(), errors.Is(err, ErrGone) }
