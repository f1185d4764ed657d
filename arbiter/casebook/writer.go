package casebook

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

type fileState uint8

const (
	writing fileState = iota
	done              // has its name; durable and summed after Finish
	aborted
)

// A File is an artifact that is being written. Write, WriteAt and Truncate
// fail with ErrNoRoom rather than break a limit; what was written stays as
// NAME.partial. WriteAt may be called from several goroutines, Write from one.
type File struct {
	c     *Case
	root  *os.Root
	f     *os.File
	name  string
	step  string
	sum   hash.Hash   // of what was written in order
	mixed atomic.Bool // not only in order: Finish reads it all again

	mu     sync.Mutex
	state  fileState
	taken  int64 // bytes of disk that the budgets count
	size   int64 // at the end
	sha    string
	reason string
}

// Write appends at the file's offset.
func (f *File) Write(p []byte) (int, error) {
	if err := f.take(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.f.Write(p)
	if !f.mixed.Load() {
		f.sum.Write(p[:n])
	}
	return n, f.wrap(err)
}

// WriteAt writes at an offset and leaves a hole before it.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.mixed.Store(true)
	if err := f.take(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.f.WriteAt(p, off)
	return n, f.wrap(err)
}

// Seek sets the offset of the next Write.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	f.mixed.Store(true)
	return f.f.Seek(offset, whence)
}

// Truncate sets the size. Holes cost no room.
func (f *File) Truncate(size int64) error {
	f.mixed.Store(true)
	return f.f.Truncate(size)
}

// Fd is for writers of their own, also in another process. They must keep to
// Room themselves.
func (f *File) Fd() uintptr {
	f.mixed.Store(true)
	return f.f.Fd()
}

// Name is the path of the file as it is now.
func (f *File) Name() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := f.name
	if f.state != done {
		name += partial
	}
	return filepath.Join(f.c.Dir(), artifactsDir, name)
}

// Room is how many more bytes the case's budget, the book's and the floor of
// free space leave now.
func (f *File) Room() (int64, error) {
	f.c.mu.Lock()
	used := f.c.used
	f.c.mu.Unlock()
	return f.c.book.budget.room(used)
}

func (f *File) take(n int64) error {
	f.c.mu.Lock()
	err := f.c.book.budget.take(n, f.c.used)
	if err == nil {
		f.c.used += n
	}
	f.c.mu.Unlock()
	if err != nil {
		return f.wrap(err)
	}
	f.mu.Lock()
	f.taken += n
	f.mu.Unlock()
	return nil
}

func (f *File) wrap(err error) error {
	if err == nil {
		return nil
	}
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		err = perr.Err // the path says no more than the name
	}
	return fmt.Errorf("write artifact %s: %w", f.name, err)
}

// Close gives the artifact its name. It does not wait for the disk: the
// container may be standing still. Finish does, after the verdict.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != writing {
		return fmt.Errorf("close artifact %s: %w", f.name, os.ErrClosed)
	}
	err := f.settle()
	if err == nil {
		from := filepath.Join(artifactsDir, f.name)
		err = f.root.Rename(from+partial, from)
	}
	if err != nil {
		f.state, f.reason = aborted, err.Error()
		return fmt.Errorf("close artifact %s: %w", f.name, err)
	}
	f.state = done
	if !f.mixed.Load() {
		f.sha = hex.EncodeToString(f.sum.Sum(nil))
	}
	return nil
}

// Abort leaves the artifact half written, and tells why in the record. After
// Close it does nothing.
func (f *File) Abort(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != writing {
		return
	}
	f.state, f.reason = aborted, "aborted"
	if why != nil {
		f.reason = why.Error()
	}
	if err := f.settle(); err != nil {
		f.reason += "; " + err.Error()
	}
}

// settle closes the file and counts the disk that it really takes.
func (f *File) settle() error {
	info, err := f.f.Stat()
	if err == nil {
		f.size = info.Size()
		diff := blocks(info) - f.taken
		f.taken += diff
		f.c.mu.Lock()
		f.c.used += diff
		f.c.mu.Unlock()
		f.c.book.budget.add(diff)
	}
	return errors.Join(err, f.f.Close())
}

func (f *File) is(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == done && f.name == name || f.state == aborted && f.name+partial == name
}

// record is the file's line in case.json.
func (f *File) record() Artifact {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := Artifact{Name: f.name, Step: f.step, Size: f.size, SHA256: f.sha, Why: f.reason}
	if f.state == done {
		return a
	}
	a.Name += partial
	a.Partial = true
	if f.state == writing {
		a.Why = "still being written"
		if info, err := f.f.Stat(); err == nil {
			a.Size = info.Size()
		}
	}
	return a
}
