package dump

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A span is a run of pages that hold something: bytes [Start, End) of the
// address space.
type span struct {
	Start, End uint64
	// File: the pages are the file's own, not private copies.
	File bool
	// Swapped: reading them brings them back and charges the cgroup.
	Swapped bool
}

// A pagemap tells which pages of a process exist, without touching them.
type pagemap struct {
	ctx  context.Context // a look at terabytes takes its time
	f    *os.File        // /proc/PID/pagemap
	scan bool            // PAGEMAP_SCAN works (Linux 6.7)
	buf  []byte
	vec  []pageRegion
}

func openPagemap(ctx context.Context, path string) (*pagemap, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pagemap: %w", err)
	}
	return &pagemap{ctx: ctx, f: f, scan: true}, nil
}

func (p *pagemap) close() error { return p.f.Close() }

// spans lists what exists of [start, end) in ascending order. Pages that are
// mapped to the kernel's page of zeros count as never touched. resident is how
// many bytes exist there, page of zeros aside. What was found comes with an
// error, too.
func (p *pagemap) spans(start, end, resident uint64) ([]span, error) {
	if p.scan {
		spans, err := p.spansByScan(start, end)
		// ENOTTY: older than 6.7. EINVAL: a kernel that does not know one of
		// the categories.
		if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
			return spans, err
		}
		p.scan = false
	}
	return p.spansByRead(start, end, resident)
}

// of lists what exists of a mapping.
func (p *pagemap) of(v vma) ([]span, error) {
	return p.spans(v.Start, v.End, (v.RSSKiB+v.SwapKiB)<<10)
}

// pageRegion and pmScanArg are struct page_region and struct pm_scan_arg of
// linux/fs.h.
type pageRegion struct {
	start, end, categories uint64
}

type pmScanArg struct {
	size, flags           uint64
	start, end, walkEnd   uint64
	vec, vecLen, maxPages uint64
	inverted, mask        uint64
	anyof, returned       uint64
}

const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPfnZero = 1 << 5
)

func (p *pagemap) spansByScan(start, end uint64) ([]span, error) {
	if p.vec == nil {
		p.vec = make([]pageRegion, 4096)
	}
	var spans []span
	for start < end {
		if p.ctx.Err() != nil {
			return spans, context.Cause(p.ctx)
		}
		arg := pmScanArg{
			size: uint64(unsafe.Sizeof(pmScanArg{})), start: start, end: end,
			vec: uint64(uintptr(unsafe.Pointer(&p.vec[0]))), vecLen: uint64(len(p.vec)),
			anyof:    pageIsPresent | pageIsSwapped,
			returned: pageIsPresent | pageIsSwapped | pageIsFile | pageIsPfnZero,
		}
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, p.f.Fd(), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return spans, fmt.Errorf("scan pagemap %#x-%#x: %w", start, end, errno)
		}
		for _, r := range p.vec[:n] {
			if r.categories&pageIsPfnZero == 0 {
				spans = appendSpan(spans, span{r.start, r.end, r.categories&pageIsFile != 0, r.categories&pageIsSwapped != 0})
			}
		}
		if arg.walkEnd <= start {
			return spans, fmt.Errorf("scan pagemap %#x-%#x: no progress", start, end)
		}
		start = arg.walkEnd
	}
	return spans, nil
}

// Bits of a pagemap entry, Documentation/admin-guide/mm/pagemap.rst.
const (
	entryExclusive = 1 << 56 // mapped once: a page proper, not the page of zeros
	entryFile      = 1 << 61
	entrySwapped   = 1 << 62
	entryPresent   = 1 << 63
)

// spansByRead reads 8 bytes for each page, touched or not: two gigabytes for a
// terabyte. It ends early where it has seen all that is resident.
func (p *pagemap) spansByRead(start, end, resident uint64) ([]span, error) {
	if p.buf == nil {
		p.buf = make([]byte, 512<<10)
	}
	var spans []span
	seen := uint64(0)
	for start < end && (seen < resident || seen == 0) {
		if p.ctx.Err() != nil {
			return spans, context.Cause(p.ctx)
		}
		want := min(uint64(len(p.buf)), (end-start)/pageSize*8)
		n, err := p.f.ReadAt(p.buf[:want], int64(start/pageSize*8))
		if n < 8 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF // the address space is gone
			}
			return spans, fmt.Errorf("read pagemap %#x-%#x: %w", start, end, err)
		}
		for i := 0; i+8 <= n; i += 8 {
			e := binary.LittleEndian.Uint64(p.buf[i:])
			if e&(entryExclusive|entrySwapped) != 0 {
				seen += pageSize
			}
			if e&(entryPresent|entrySwapped) != 0 {
				spans = appendSpan(spans, span{start, start + pageSize, e&entryFile != 0, e&entrySwapped != 0})
			}
			start += pageSize
		}
	}
	return spans, nil
}

// appendSpan joins s to the last span where it only continues that.
func appendSpan(spans []span, s span) []span {
	if n := len(spans); n > 0 {
		last := &spans[n-1]
		if last.End == s.Start && last.File == s.File && last.Swapped == s.Swapped {
			last.End = s.End
			return spans
		}
	}
	return append(spans, s)
}

// dataSpans lists what a file holds of the mapping v, by SEEK_DATA and
// SEEK_HOLE. On tmpfs a hole is a page that was never touched, and swapped
// pages count as data. Every file system knows the two, if only by calling
// everything data.
func dataSpans(f *os.File, v vma) ([]span, error) {
	var spans []span
	end := int64(v.Offset + v.size())
	for at := int64(v.Offset); at < end; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || data >= end && err == nil {
			break // nothing but a hole up to the end
		}
		if err != nil {
			return nil, fmt.Errorf("seek data: %w", err)
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("seek hole: %w", err)
		}
		from := uint64(data) &^ (pageSize - 1)
		to := min((uint64(hole)+pageSize-1)&^(pageSize-1), uint64(end))
		spans = appendSpan(spans, span{v.Start + from - v.Offset, v.Start + to - v.Offset, true, false})
		at = int64(to)
	}
	return spans, nil
}
