package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/cmd/memleak/progress"
)

// sourceSize is the length of the patterned file that kind "read" reads and
// of the buffer that "pipe" and "cache" write.
const sourceSize = 64 << 10

// A worker is one thread of a run.
type worker struct {
	o        *options
	n        int // its number in the process
	kind     string
	pace     *pacer
	progress *progress.Writer
	say      func(format string, args ...any)
	source   int    // memfd with the pattern
	pattern  []byte // the same in memory
	blocks   []block
	taken    uint64 // bytes
	turn     int    // "mixed": the next kind
	checked  int    // --verify: the next block to look at again
}

// run takes blocks until the share of the ceiling is reached or ctx is done.
func (w *worker) run(ctx context.Context) error {
	// A page fault at the limit sleeps in the kernel; only a thread of its
	// own keeps it from holding up the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for round := 1; ; round++ {
		if err := w.grow(ctx); err != nil {
			return err
		}
		w.verify(len(w.blocks))
		if !w.o.free {
			return nil
		}
		if err := sleep(ctx, w.o.hold); err != nil {
			return err
		}
		w.release()
		if w.o.rounds > 0 && round >= w.o.rounds {
			return nil
		}
	}
}

func (w *worker) grow(ctx context.Context) error {
	share := uint64(w.o.ceiling) / uint64(w.o.threads)
	for w.o.ceiling == 0 || w.taken < share {
		n := uint64(w.o.block)
		if w.o.ceiling > 0 {
			n = min(n, (share-w.taken+pageSize-1)&^(pageSize-1))
		}
		if err := w.pace.wait(ctx, n); err != nil {
			return err
		}
		if err := w.step(int(n)); err != nil {
			if w.o.onError == "exit" {
				return err
			}
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
		if w.o.verify {
			w.verify(1)
		}
	}
	return nil
}

// step takes one block. A failed call is counted, told once, and returned.
func (w *worker) step(n int) error {
	name := w.kind
	if name == "mixed" {
		name = kinds[w.turn%len(kinds)].name
		w.turn++
	}
	k, _ := kindNamed(name) // checked with the flags
	b, err := k.take(w, n)
	w.taken += uint64(b.taken)
	switch {
	case b.taken > 0:
		w.blocks = append(w.blocks, b)
	case b.free != nil:
		b.free()
	}
	w.progress.Mark()
	var call callError
	if !errors.As(err, &call) {
		return nil
	}
	times := w.failed(call)
	if times == 1 || times%1000 == 0 {
		w.say("error kind=%s %v (%d so far, %s taken by this thread)", k.name, call, times, size(w.taken))
	}
	return fmt.Errorf("kind %s: %w", k.name, call)
}

func (w *worker) failed(e callError) (times uint64) {
	if e.short {
		return w.progress.Short(e.call)
	}
	return w.progress.Failed(e.call, e.errno)
}

// touch writes to the share of b's pages that --touch asks for, evenly spread.
func (w *worker) touch(b *block) {
	due := 0.0
	for ; b.taken < len(b.data); b.taken += pageSize {
		due += w.o.touch
		if due < 1 {
			continue
		}
		due--
		w.mark(b.data, b.taken)
		w.progress.Touched(1)
		b.pages++
	}
}

// filled counts the first n bytes of b, which one system call brought in.
func (w *worker) filled(b *block, n int) {
	if w.o.verify {
		for at := 0; at < n; at += pageSize {
			w.mark(b.data, at)
		}
	}
	w.count(b, n)
}

// count adds n bytes to what was taken.
func (w *worker) count(b *block, n int) {
	b.taken += n
	b.pages += uint64(n) / pageSize
	w.progress.Touched(uint64(n) / pageSize)
}

// mark writes a page: its first word, or with --verify all of it.
func (w *worker) mark(data []byte, at int) {
	if w.o.verify {
		copy(data[at:], w.pattern[at%sourceSize:][:pageSize])
		return
	}
	binary.NativeEndian.PutUint64(data[at:], 1)
}

// chunk is what to write of a block of n bytes after done bytes.
func (w *worker) chunk(done, n int) []byte {
	from := done % sourceSize
	return w.pattern[from:min(sourceSize, from+n-done)]
}

// verify compares the next n blocks that it has not looked at for longest.
func (w *worker) verify(n int) {
	if !w.o.verify || len(w.blocks) == 0 {
		return
	}
	for range n {
		b := w.blocks[w.checked%len(w.blocks)]
		w.checked++
		if b.data == nil {
			continue
		}
		var bad uint64
		for at := 0; at < b.taken; at += pageSize {
			if !bytes.Equal(b.data[at:at+pageSize], w.pattern[at%sourceSize:][:pageSize]) {
				bad++
			}
		}
		w.progress.Checked(b.pages, bad)
		if bad > 0 {
			w.say("error verify: %d pages of a block changed", bad)
		}
	}
}

func (w *worker) release() {
	for _, b := range w.blocks {
		b.free()
		w.progress.Freed(b.pages)
	}
	w.blocks, w.taken, w.checked = w.blocks[:0], 0, 0
}

// newPattern is sourceSize bytes in which every 8 bytes differ.
func newPattern() []byte {
	p := make([]byte, sourceSize)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(i+1)*0x9e3779b97f4a7c15)
	}
	return p
}

// patternFile is a memfd that holds the pattern.
func patternFile(p []byte) (int, error) {
	fd, err := unix.MemfdCreate("memleak-pattern", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make pattern file: %w", err)
	}
	if n, err := unix.Pwrite(fd, p, 0); err != nil || n < len(p) {
		return -1, fmt.Errorf("write pattern file: %w", errors.Join(err, io.ErrShortWrite))
	}
	return fd, nil
}

// A pacer spreads a rate over the workers of a process. It never catches up:
// a run that was frozen for a minute goes on at the old speed.
type pacer struct {
	bytesPerSecond uint64
	mu             sync.Mutex
	next           time.Time
}

func (p *pacer) wait(ctx context.Context, n uint64) error {
	if p.bytesPerSecond == 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	until := p.next
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.bytesPerSecond) * float64(time.Second)))
	p.mu.Unlock()
	return sleep(ctx, until.Sub(now))
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
