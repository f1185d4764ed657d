package dump

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	chunkBytes = 1 << 20 // what one worker reads at once
	chunkItems = 512     // process_vm_readv takes up to 1024 (UIO_MAXIOV)
)

// An item is a run of bytes to be copied from the process into its segment.
type item struct {
	seg  *segment
	addr uint64
	size uint64
	file bool
}

func (it item) offset() uint64 { return it.seg.offset + it.addr - it.seg.start }

// A writer copies an image's memory into its file.
type writer struct {
	im      *image
	out     *os.File
	minFree uint64
	written *atomic.Uint64 // bytes of memory, of all images

	mu        sync.Mutex
	stop      error               // why nothing more is written
	lost      map[*segment]uint64 // first address that is not in the file
	unread    uint64              // bytes that could not be read
	firstFail string
	sinceStat uint64
}

// copyAll copies everything with two workers: one reads memory while the other
// waits for the disk; more only fight over the page tables. It returns why it
// stopped early, or nil.
func (w *writer) copyAll(ctx context.Context) error {
	chunks := make(chan []item)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			buf := make([]byte, chunkBytes)
			for chunk := range chunks {
				if err := context.Cause(ctx); err != nil {
					w.giveUp(err)
				}
				w.copyChunk(chunk, buf)
			}
		})
	}
	for chunk := range chunked(w.im.segments) {
		chunks <- chunk
	}
	close(chunks)
	wg.Wait()
	return w.stop
}

// inOrder lists the segments as they are written: the urgent and small first.
func inOrder(segments []segment) []*segment {
	order := make([]*segment, len(segments))
	for i := range segments {
		order[i] = &segments[i]
	}
	slices.SortStableFunc(order, func(a, b *segment) int {
		return cmp.Or(cmp.Compare(a.urgent, b.urgent), cmp.Compare(a.fileSize, b.fileSize))
	})
	return order
}

// chunked cuts the spans of all segments into pieces for the workers. A chunk
// is of one source, memory or one file.
func chunked(segments []segment) iter.Seq[[]item] {
	return func(yield func([]item) bool) {
		var chunk []item
		room := uint64(chunkBytes)
		flush := func() bool {
			ok := len(chunk) == 0 || yield(chunk)
			chunk, room = nil, chunkBytes
			return ok
		}
		for _, seg := range inOrder(segments) {
			for _, s := range seg.spans {
				for at := s.Start; at < s.End; {
					if n := len(chunk); n == chunkItems || room == 0 || n > 0 && (s.File || chunk[0].file) && (chunk[0].seg.vma != seg.vma || chunk[0].file != s.File) {
						if !flush() {
							return
						}
					}
					size := min(room, s.End-at)
					chunk = append(chunk, item{seg, at, size, s.File})
					room -= size
					at += size
				}
			}
		}
		flush()
	}
}

func (w *writer) copyChunk(chunk []item, buf []byte) {
	w.mu.Lock()
	stopped := w.stop != nil
	w.mu.Unlock()
	if stopped {
		w.lose(chunk)
		return
	}
	var err error
	if chunk[0].file {
		w.readFile(chunk, buf)
	} else {
		err = w.readMemory(chunk, buf)
	}
	if err == nil {
		err = w.write(chunk, buf)
	}
	if err != nil {
		w.giveUp(err)
		w.lose(chunk)
	}
}

// readMemory fills buf with the chunk's memory. Pages that cannot be read are
// zero there and counted; the error is ErrGone or nil.
func (w *writer) readMemory(chunk []item, buf []byte) error {
	remote := make([]unix.RemoteIovec, len(chunk))
	for i, it := range chunk {
		remote[i] = unix.RemoteIovec{Base: uintptr(it.addr), Len: int(it.size)}
	}
	at := uint64(0)
	for i := 0; i < len(chunk); {
		size := uint64(0)
		for _, r := range remote[i:] {
			size += uint64(r.Len)
		}
		local := []unix.Iovec{{Base: &buf[at]}}
		local[0].SetLen(int(size))
		n, err := unix.ProcessVMReadv(w.im.pid, local, remote[i:], 0)
		if errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("%w: it died while its core was written", ErrGone)
		}
		if n < 0 || err != nil {
			n = 0
		}
		got := uint64(n)
		// A short count stops at the first page that cannot be read: the item
		// with that page is read the slow way.
		for ; i < len(chunk) && got >= uint64(remote[i].Len); i++ {
			got -= uint64(remote[i].Len)
			at += uint64(remote[i].Len)
		}
		if i < len(chunk) {
			w.readSlowly(chunk[i], buf[at:at+chunk[i].size])
			at += chunk[i].size
			i++
		}
	}
	return nil
}

// readSlowly reads through /proc/PID/mem, which also reads what the process
// itself may not, page by page if it must.
func (w *writer) readSlowly(it item, buf []byte) {
	if n, err := w.im.mem.ReadAt(buf, int64(it.addr)); n == len(buf) && (err == nil || err == io.EOF) {
		return
	}
	for off := uint64(0); off < it.size; off += pageSize {
		page := buf[off : off+pageSize]
		if n, err := w.im.mem.ReadAt(page, int64(it.addr+off)); n < pageSize {
			clear(page)
			w.fail(it.addr+off, pageSize, err)
		}
	}
}

// readFile reads pages of a mapped file from the file itself.
func (w *writer) readFile(chunk []item, buf []byte) {
	v := chunk[0].seg.vma
	f := w.im.choose.open(*v)
	if f != nil {
		defer f.Close()
	}
	at := uint64(0)
	for _, it := range chunk {
		part := buf[at : at+it.size]
		at += it.size
		n, err := 0, error(unix.ENOENT)
		if f != nil {
			n, err = f.ReadAt(part, int64(v.Offset+it.addr-v.Start))
		}
		clear(part[n:]) // behind the end of the file a page is zero
		if err != nil && !errors.Is(err, io.EOF) {
			w.fail(it.addr+uint64(n), it.size-uint64(n), err)
		}
	}
}

// write writes the chunk's items, those together that lie together, and leaves
// pages of zeros out: they are the hole that the file has there already.
func (w *writer) write(chunk []item, buf []byte) error {
	at, written := uint64(0), uint64(0)
	for i := 0; i < len(chunk); {
		start, size := chunk[i].offset(), uint64(0)
		for ; i < len(chunk) && chunk[i].offset() == start+size; i++ {
			size += chunk[i].size
		}
		for from, to := range filled(buf[at : at+size]) {
			if _, err := w.out.WriteAt(buf[at+from:at+to], int64(start+from)); err != nil {
				return fmt.Errorf("write core: %w", errors.Unwrap(err))
			}
			written += to - from
		}
		at += size
	}
	w.written.Add(written)
	return w.floor(written)
}

// filled lists the runs of pages that are not zero.
func filled(b []byte) iter.Seq2[uint64, uint64] {
	return func(yield func(from, to uint64) bool) {
		var zero [pageSize]byte
		from, at := 0, 0
		for ; at < len(b); at += pageSize {
			if !bytes.Equal(b[at:at+pageSize], zero[:]) {
				continue
			}
			if from < at && !yield(uint64(from), uint64(at)) {
				return
			}
			from = at + pageSize
		}
		if from < at {
			yield(uint64(from), uint64(at))
		}
	}
}

var errFloor = errors.New("the disk's free space is at its floor")

// floor looks at the free space once in every 16 MiB.
func (w *writer) floor(n uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sinceStat += n; w.minFree == 0 || w.sinceStat < 16<<20 {
		return nil
	}
	w.sinceStat = 0
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(w.out.Fd()), &st); err != nil {
		return nil // a file system that cannot tell has no floor
	}
	if st.Bavail*uint64(st.Bsize) < w.minFree {
		return errFloor
	}
	return nil
}

func (w *writer) giveUp(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop == nil {
		w.stop = err
	}
}

// lose notes that the chunk is not in the file: its segments end before it.
func (w *writer) lose(chunk []item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range chunk {
		if at, ok := w.lost[it.seg]; !ok || it.addr < at {
			w.lost[it.seg] = it.addr
		}
	}
}

func (w *writer) fail(addr, size uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unread += size
	if w.firstFail == "" {
		w.firstFail = fmt.Sprintf("%#x: %v", addr, err)
	}
}
