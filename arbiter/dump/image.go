package dump

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
)

// maxHole is the longest stretch of never-touched memory that the file shows
// as a hole. The rest of a longer one is left out of the file (the segment
// says how long the mapping is): a core with a terabyte of holes is a burden
// to everything that copies, sums or compresses it. The first maxHole bytes of
// it stay, since what was held at its limit often was about to go there:
// HotSpot's debugger takes memory that is not in the file for unreadable, not
// for zero, and breaks off within the array that ends there.
const maxHole = 64 << 20

// An image is everything about a process that its core is made from, taken
// while it stands still.
type image struct {
	pid      int
	dir      procDir
	choose   chooser
	mem      *os.File // /proc/PID/mem: holds the address space, forces reads of unreadable pages
	vmas     []vma
	segments []segment
	notes    []byte
	missing  missing
	data     uint64 // bytes that the spans hold
	swapped  uint64 // bytes of them in swap
}

// A taking says how an image is taken.
type taking struct {
	filter      uint64
	skipSwapped bool
}

// take looks at a stopped process: its mappings, which pages exist, and the
// notes. It reads no memory but the first bytes of files.
func take(ctx context.Context, pid int, threads []noteThread, how taking) (*image, error) {
	im := &image{pid: pid, dir: processDir(pid)}
	smaps, err := os.Open(im.dir.path("smaps"))
	if err != nil {
		return nil, gone(err)
	}
	defer smaps.Close()
	if im.vmas, err = parseSmaps(smaps); err != nil {
		return nil, err
	}
	if len(im.vmas) == 0 {
		return nil, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if im.choose, err = newChooser(im.dir, how.filter); err != nil {
		return nil, gone(err)
	}
	if im.mem, err = os.Open(im.dir.path("mem")); err != nil {
		return nil, gone(err)
	}
	if err := im.addSegments(ctx, threads, how.skipSwapped); err != nil {
		im.close()
		return nil, err
	}
	if err := im.addNotes(threads); err != nil {
		im.close()
		return nil, gone(err)
	}
	return im, nil
}

func (im *image) close() { im.mem.Close() }

func (im *image) addSegments(ctx context.Context, threads []noteThread, skipSwapped bool) error {
	pages, err := openPagemap(ctx, im.dir.path("pagemap"))
	if err != nil {
		return gone(err)
	}
	defer pages.close()
	stacks := make([]uint64, 0, len(threads))
	for _, th := range threads {
		stacks = append(stacks, th.regs.stackPointer())
	}
	slices.Sort(stacks)
	for i := range im.vmas {
		v := &im.vmas[i]
		spans, err := im.spans(pages, *v)
		if err != nil && ctx.Err() != nil {
			im.missing.add("%d bytes at %#x were not looked at: %v", v.size(), v.Start, err)
		} else if err != nil {
			return err
		}
		spans = im.leaveSwapped(spans, skipSwapped)
		first := len(im.segments)
		im.segments = append(im.segments, split(v, spans)...)
		at, _ := slices.BinarySearch(stacks, v.Start)
		urgent := urgency(*v, at < len(stacks) && stacks[at] < v.End)
		for j := first; j < len(im.segments); j++ {
			im.segments[j].urgent = urgent
		}
		for _, s := range spans {
			im.data += s.End - s.Start
		}
	}
	return nil
}

// spans lists the parts of v that go into the core.
func (im *image) spans(pages *pagemap, v vma) ([]span, error) {
	what := im.choose.content(v)
	switch {
	case what == nothing:
		return nil, nil
	case what == header:
		return im.headerSpan(pages, v)
	case v.Name == "[vdso]":
		return []span{{Start: v.Start, End: v.End}}, nil
	case !v.file() && v.RSSKiB == 0 && v.SwapKiB == 0 && !v.Huge:
		return nil, nil // spares a scan of what is only reserved
	case v.Huge:
		spans, err := pages.of(v)
		return inMemory(spans), err
	case !v.file():
		// A "file's" page here is the huge page of zeros.
		spans, err := pages.of(v)
		return slices.DeleteFunc(spans, func(s span) bool { return s.File }), err
	}
	f := im.choose.open(v)
	if f == nil {
		spans, err := pages.of(v)
		spans = inMemory(spans)
		im.missing.add("what is not mapped now of %s at %#x: its file cannot be read safely", v.Name, v.Start)
		return spans, err
	}
	defer f.Close()
	data, err := dataSpans(f, v)
	if err != nil || v.Shared {
		return data, err
	}
	mapped, err := pages.of(v)
	if err != nil {
		return nil, err
	}
	return overlay(data, mapped), nil
}

// inMemory has spans read where the process sees them.
func inMemory(spans []span) []span {
	for i := range spans {
		spans[i].File = false
	}
	return spans
}

// headerSpan is the first page of an ELF file. It is read from the file
// unless the process has its own copy.
func (im *image) headerSpan(pages *pagemap, v vma) ([]span, error) {
	first := span{Start: v.Start, End: v.Start + pageSize, File: true}
	mapped, err := pages.spans(first.Start, first.End, pageSize)
	if err != nil {
		return nil, err
	}
	magic := make([]byte, 4)
	if f := im.choose.open(v); f != nil {
		defer f.Close()
		if _, err := f.ReadAt(magic, 0); err != nil {
			return nil, nil // shorter than a magic number: not ELF
		}
	} else if len(mapped) == 0 {
		return nil, nil
	} else if _, err := im.mem.ReadAt(magic, int64(v.Start)); err != nil {
		return nil, nil
	} else {
		first.File = false
	}
	if !bytes.Equal(magic, []byte("\x7fELF")) {
		return nil, nil
	}
	return []span{first}, nil
}

// leaveSwapped counts swapped pages, and takes them out where reading them
// could cost the container its life.
func (im *image) leaveSwapped(spans []span, leave bool) []span {
	return slices.DeleteFunc(spans, func(s span) bool {
		if s.Swapped {
			im.swapped += s.End - s.Start
		}
		return s.Swapped && leave
	})
}

// overlay lays the private pages of a mapping over the data of its file.
func overlay(data, mapped []span) []span {
	var own, out []span
	for _, s := range mapped {
		if !s.File {
			own = append(own, s)
		}
	}
	for _, d := range data {
		at := d.Start
		for _, o := range own {
			if o.End <= at || o.Start >= d.End {
				continue
			}
			if at < o.Start {
				out = append(out, span{Start: at, End: o.Start, File: true})
			}
			at = max(at, o.End)
		}
		if at < d.End {
			out = append(out, span{Start: at, End: d.End, File: true})
		}
	}
	out = append(out, own...)
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.Start, b.Start) })
	return out
}

// split makes the segments of a mapping. What follows a span by more than
// maxHole is not in the file.
func split(v *vma, spans []span) []segment {
	var segments []segment
	cur := segment{vma: v, start: v.Start}
	end := v.Start
	for _, s := range spans {
		if s.Start-end > maxHole {
			cur.fileSize, cur.memSize = cur.until(end), s.Start-cur.start
			segments = append(segments, cur)
			cur = segment{vma: v, start: s.Start}
		}
		cur.spans = append(cur.spans, s)
		end = s.End
	}
	cur.memSize = v.End - cur.start
	cur.fileSize = min(cur.until(end), cur.memSize)
	return append(segments, cur)
}

// until is the size in the file of a segment whose last span ends at end. What
// a file's mapping has not there is no zeros.
func (s segment) until(end uint64) uint64 {
	size := end - s.start
	if len(s.spans) > 0 && !s.vma.file() {
		size += maxHole
	}
	return size
}

// urgency orders what is written: first what a debugger needs to show any
// stack, last what lies in files as well.
func urgency(v vma, stack bool) int {
	switch {
	case stack, v.Name == "[vdso]", v.Name == "[stack]":
		return 0
	case v.file() && !v.Shared && v.Write:
		return 1 // global variables
	case v.file() && v.AnonKiB == 0:
		return 4
	case v.Shared:
		return 3
	}
	return 2
}
