package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

// A block is memory taken in one go. data is nil where the content cannot be
// compared in place (pipe, cache).
type block struct {
	data  []byte
	taken int    // bytes, from the start of data: what counts towards the ceiling
	pages uint64 // touched or filled; with --touch fewer than were taken
	free  func()
}

// A kind is one way to make the kernel charge memory.
type kind struct {
	name string
	help string
	// take takes n bytes, or returns an error that names the call. What it
	// took before the error is in the block.
	take func(w *worker, n int) (block, error)
}

// kinds is every kind; "mixed" walks through them in this order.
var kinds = [...]kind{
	{"anon", "private memory, touched page by page (page faults)", takeAnon},
	{"thp", "private memory in huge pages, touched", takeTHP},
	{"shm", "shared memory (memfd), touched", takeShm},
	{"cache", "page cache: a deleted file in --dir, written", takeCache},
	{"populate", "mmap with MAP_POPULATE: one system call a block", takePopulate},
	{"populate-thp", "madvise MADV_POPULATE_WRITE of huge pages", takePopulateTHP},
	{"pipe", "kernel buffers of pipes, written", takePipe},
	{"mlock", "private memory through mlock", takeMlock},
	{"read", "private memory that read(2) fills", takeRead},
}

func kindNamed(name string) (kind, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k, true
		}
	}
	return kind{}, false
}

// A callError is a failed system call.
type callError struct {
	call  string
	errno unix.Errno
	short bool // it did part of its work; errno is 0
}

func (e callError) Error() string {
	if e.short {
		return e.call + ": short"
	}
	return fmt.Sprintf("%s: %v", e.call, e.errno)
}

func failed(call string, err error) error {
	var errno unix.Errno
	errors.As(err, &errno)
	return callError{call: call, errno: errno}
}

func takeAnon(w *worker, n int) (block, error) {
	b, err := mapPrivate(n, 0)
	if err != nil {
		return b, err
	}
	// Without this a huge page could come for one touched byte, and --touch
	// and --rate would mean nothing.
	if err := unix.Madvise(b.data, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return b, failed("madvise", err)
	}
	w.touch(&b)
	return b, nil
}

func takeTHP(w *worker, n int) (block, error) {
	b, err := mapHuge(n)
	if err != nil {
		return b, err
	}
	w.touch(&b)
	return b, nil
}

func takeShm(w *worker, n int) (block, error) {
	fd, err := unix.MemfdCreate("memleak", unix.MFD_CLOEXEC)
	if err != nil {
		return block{}, failed("memfd", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(n)); err != nil {
		return block{}, failed("memfd", err)
	}
	data, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return block{}, failed("mmap", err)
	}
	b := block{data: data, free: func() { _ = unix.Munmap(data) }}
	w.touch(&b)
	return b, nil
}

func takeCache(w *worker, n int) (block, error) {
	f, err := os.CreateTemp(w.o.dir, "memleak-")
	if err != nil {
		return block{}, failed("open", err)
	}
	_ = os.Remove(f.Name())
	b := block{free: func() { _ = f.Close() }}
	for b.taken < n {
		done, err := f.Write(w.chunk(b.taken, n))
		w.count(&b, done)
		if err != nil {
			return b, failed("write", err)
		}
	}
	return b, nil
}

func takePopulate(w *worker, n int) (block, error) {
	b, err := mapPrivate(n, unix.MAP_POPULATE)
	if err != nil {
		return b, err
	}
	have := resident(b.data)
	w.filled(&b, have)
	if have == n {
		return b, nil
	}
	// mmap reports success when populating ended early: an application goes
	// on and touches the rest.
	for at := have; at < n; at += pageSize {
		w.mark(b.data, at)
		w.count(&b, pageSize)
	}
	return b, callError{call: "mmap", short: true}
}

func takePopulateTHP(w *worker, n int) (block, error) {
	b, err := mapHuge(n)
	if err != nil {
		return b, err
	}
	if err := unix.Madvise(b.data, unix.MADV_POPULATE_WRITE); err != nil {
		w.filled(&b, resident(b.data))
		return b, failed("madvise", err)
	}
	w.filled(&b, n)
	return b, nil
}

func takePipe(w *worker, n int) (block, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return block{}, failed("pipe", err)
	}
	b := block{free: func() { unix.Close(p[0]); unix.Close(p[1]) }}
	capacity, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, min(n, 1<<20))
	if err != nil {
		return b, failed("pipe", err)
	}
	for b.taken < min(n, capacity) {
		done, err := unix.Write(p[1], w.chunk(b.taken, n))
		if err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return b, nil // full
			}
			return b, failed("write", err)
		}
		w.count(&b, done)
	}
	return b, nil
}

func takeMlock(w *worker, n int) (block, error) {
	b, err := mapPrivate(n, 0)
	if err != nil {
		return b, err
	}
	if err := unix.Mlock(b.data); err != nil {
		w.filled(&b, resident(b.data))
		return b, failed("mlock", err)
	}
	w.filled(&b, n)
	return b, nil
}

func takeRead(w *worker, n int) (block, error) {
	b, err := mapPrivate(n, 0)
	if err != nil {
		return b, err
	}
	for b.taken < n {
		into := b.data[b.taken:min(n, b.taken+sourceSize)]
		done, err := unix.Pread(w.source, into, 0)
		if err != nil {
			return b, failed("read", err)
		}
		w.count(&b, done&^(pageSize-1))
		if done < len(into) {
			return b, callError{call: "read", short: true}
		}
	}
	return b, nil
}

func mapPrivate(n, flags int) (block, error) {
	data, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|flags)
	if err != nil {
		return block{}, failed("mmap", err)
	}
	return block{data: data, free: func() { _ = unix.Munmap(data) }}, nil
}

// mapHuge maps n bytes aligned for huge pages and asks for them.
func mapHuge(n int) (block, error) {
	const huge = 2 << 20
	whole, err := unix.Mmap(-1, 0, n+huge, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return block{}, failed("mmap", err)
	}
	b := block{free: func() { _ = unix.Munmap(whole) }}
	skip := -int(uintptr(unsafe.Pointer(&whole[0]))) & (huge - 1)
	b.data = whole[skip : skip+n]
	if err := unix.Madvise(b.data, unix.MADV_HUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return b, failed("madvise", err) // EINVAL: a kernel without huge pages
	}
	return b, nil
}

// resident counts the bytes at data's start that have pages.
func resident(data []byte) int {
	vec := make([]byte, (len(data)+pageSize-1)/pageSize)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&vec[0])))
	if errno != 0 {
		return 0
	}
	for i, v := range vec {
		if v&1 == 0 {
			return i * pageSize
		}
	}
	return len(data)
}
