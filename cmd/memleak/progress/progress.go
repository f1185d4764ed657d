// Package progress is the file in which memleak writes down how far it came.
//
// The file is a few pages that every process and thread of one run maps
// shared and touches before it allocates anything. Writing to it later
// therefore charges nothing to the cgroup and needs no system call, so it
// works at the limit, and it can be read while the run is frozen or dead.
package progress

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls are the system calls whose errors are counted, in the file's order.
var Calls = [...]string{"mmap", "madvise", "mlock", "memfd", "open", "write", "read", "pipe", "fork"}

const (
	magic    = 0x31_6b61_656c_6d65_6d // "memleak1", little endian
	ringSize = 1024
)

// layout is the file: native byte order, since one machine writes and reads it.
type layout struct {
	magic      uint64
	begun      atomic.Uint64 // monotonic ns when the first worker began
	pages      atomic.Uint64 // of 4 KiB, touched or filled so far
	lastTouch  atomic.Uint64 // monotonic ns of the last of them
	freed      atomic.Uint64 // pages given back by --free
	checked    atomic.Uint64 // pages that --verify compared
	mismatches atomic.Uint64 // pages among them with other content
	errors     [len(Calls)]uint64
	shorts     [len(Calls)]uint64 // calls that succeeded in part
	lastErrno  [len(Calls)]uint64
	samples    atomic.Uint64 // written so far; the ring holds the newest ringSize
	ring       [ringSize]Sample
}

// A Sample is a moment of a run.
type Sample struct {
	MonotonicNanos uint64
	Pages          uint64 // touched by then
}

// A Writer counts into a progress file. Its methods may be called from any
// thread and process that has the file open.
type Writer struct {
	l    *layout
	base uint64 // monotonic ns at start; time.Since avoids a system call a page
	at   time.Time
}

// Create opens path for counting, and makes it if it is not there: the
// processes of one run all open the same file. An empty path counts in memory.
func Create(path string) (*Writer, error) {
	size := int(unsafe.Sizeof(layout{}))
	fd, flags := -1, unix.MAP_SHARED|unix.MAP_POPULATE
	if path == "" {
		flags |= unix.MAP_ANONYMOUS
	} else {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("create progress file: %w", err)
		}
		defer f.Close()
		if err := f.Truncate(int64(size)); err != nil {
			return nil, fmt.Errorf("create progress file: %w", err)
		}
		fd = int(f.Fd())
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("map progress file %s: %w", path, err)
	}
	for i := 0; i < size; i += 4096 {
		atomic.AddUint64((*uint64)(unsafe.Pointer(&b[i])), 0) // populate alone leaves file pages clean and write-protected
	}
	w := &Writer{l: (*layout)(unsafe.Pointer(&b[0])), base: Now(), at: time.Now()}
	w.l.begun.CompareAndSwap(0, w.base)
	atomic.StoreUint64(&w.l.magic, magic)
	return w, nil
}

// Now is CLOCK_MONOTONIC in ns: the clock of every figure here.
func Now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // cannot happen: the clock is always there
	}
	return uint64(ts.Nano())
}

// Touched counts pages that have just been touched.
func (w *Writer) Touched(pages uint64) {
	now := w.base + uint64(time.Since(w.at))
	w.l.lastTouch.Store(now)
	w.l.pages.Add(pages)
}

// Mark adds a sample to the ring.
func (w *Writer) Mark() {
	i := w.l.samples.Add(1) - 1
	s := &w.l.ring[i%ringSize]
	atomic.StoreUint64(&s.Pages, w.l.pages.Load())
	atomic.StoreUint64(&s.MonotonicNanos, w.base+uint64(time.Since(w.at)))
}

// Freed counts pages given back.
func (w *Writer) Freed(pages uint64) { w.l.freed.Add(pages) }

// Checked counts compared pages.
func (w *Writer) Checked(pages, mismatches uint64) {
	w.l.checked.Add(pages)
	w.l.mismatches.Add(mismatches)
}

// Failed counts a failed call and returns how many there were of it. It
// panics if call is not one of Calls.
func (w *Writer) Failed(call string, errno unix.Errno) uint64 {
	i := index(call)
	atomic.StoreUint64(&w.l.lastErrno[i], uint64(errno))
	return atomic.AddUint64(&w.l.errors[i], 1)
}

// Short counts a call that did only part of its work.
func (w *Writer) Short(call string) uint64 { return atomic.AddUint64(&w.l.shorts[index(call)], 1) }

func index(call string) int {
	for i, c := range Calls {
		if c == call {
			return i
		}
	}
	panic("progress: unknown call " + call)
}

// Report is the report as it stands.
func (w *Writer) Report() Report { return w.l.report() }

// A Report is what a progress file says at one moment.
type Report struct {
	Begun      uint64 // monotonic ns
	Pages      uint64 // of 4 KiB, touched in all
	LastTouch  uint64 // monotonic ns
	Freed      uint64
	Checked    uint64
	Mismatches uint64
	Errors     map[string]uint64 // by call, only those that happened
	Shorts     map[string]uint64
	LastErrno  map[string]unix.Errno
	Samples    []Sample // oldest first
}

// ErrFormat says that a file is not a progress file.
var ErrFormat = errors.New("not a progress file")

// Read reads a progress file, also of a run that is frozen or dead.
func Read(path string) (Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return Report{}, fmt.Errorf("read progress: %w", err)
	}
	defer f.Close()
	r, err := parse(f)
	if err != nil {
		return Report{}, fmt.Errorf("read progress %s: %w", path, err)
	}
	return r, nil
}

func parse(r io.Reader) (Report, error) {
	var l layout
	b := unsafe.Slice((*byte)(unsafe.Pointer(&l)), unsafe.Sizeof(l))
	if _, err := io.ReadFull(r, b); err != nil || l.magic != magic {
		return Report{}, ErrFormat
	}
	return l.report(), nil
}

func (l *layout) report() Report {
	r := Report{
		Begun: l.begun.Load(), Pages: l.pages.Load(),
		LastTouch: l.lastTouch.Load(), Freed: l.freed.Load(),
		Checked: l.checked.Load(), Mismatches: l.mismatches.Load(),
		Errors: map[string]uint64{}, Shorts: map[string]uint64{}, LastErrno: map[string]unix.Errno{},
	}
	for i, call := range Calls {
		if n := atomic.LoadUint64(&l.errors[i]); n > 0 {
			r.Errors[call] = n
			r.LastErrno[call] = unix.Errno(atomic.LoadUint64(&l.lastErrno[i]))
		}
		if n := atomic.LoadUint64(&l.shorts[i]); n > 0 {
			r.Shorts[call] = n
		}
	}
	n := l.samples.Load()
	for i := n - min(n, ringSize); i < n; i++ {
		r.Samples = append(r.Samples, l.ring[i%ringSize])
	}
	return r
}

// TotalErrors counts failed and short calls of every kind.
func (r Report) TotalErrors() uint64 {
	var n uint64
	for _, m := range []map[string]uint64{r.Errors, r.Shorts} {
		for _, c := range m {
			n += c
		}
	}
	return n
}

// String is the report for people: one figure a line.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pages        %d (%.1f MiB)\n", r.Pages, float64(r.Pages)/256)
	fmt.Fprintf(&b, "begun        %d ns\n", r.Begun)
	fmt.Fprintf(&b, "last-touch   %d ns\n", r.LastTouch)
	fmt.Fprintf(&b, "freed        %d pages\n", r.Freed)
	fmt.Fprintf(&b, "checked      %d pages\n", r.Checked)
	fmt.Fprintf(&b, "mismatches   %d pages\n", r.Mismatches)
	for _, call := range Calls {
		if n := r.Errors[call]; n > 0 {
			fmt.Fprintf(&b, "errors       %s %d (last: %v)\n", call, n, r.LastErrno[call])
		}
		if n := r.Shorts[call]; n > 0 {
			fmt.Fprintf(&b, "short        %s %d\n", call, n)
		}
	}
	return b.String()
}
