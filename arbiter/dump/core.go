package dump

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
)

// A noteThread is one thread as the notes tell of it.
type noteThread struct {
	who  identity
	regs registers
}

// addNotes makes the core's notes in the order of the kernel's own cores: the
// first thread, the process, the other threads.
func (im *image) addNotes(threads []noteThread) error {
	who, err := identify(im.dir)
	if err != nil {
		return err
	}
	cmdline, err := im.dir.read("cmdline")
	if err != nil {
		return err
	}
	auxv, err := im.dir.read("auxv")
	if err != nil {
		return err
	}
	// First, at a fixed place, so that it can be written over at the end.
	b := appendNote(nil, "ARBITER", noteMissing, append([]byte(unfinished), make([]byte, noteMissingSize-len(unfinished))...))
	for i, th := range threads {
		b = appendNote(b, "CORE", ntPrstatus, prstatus(th.who, th.regs.general))
		if i == 0 {
			b = appendNote(b, "CORE", ntPrpsinfo, prpsinfo(who, cmdline))
			b = appendNote(b, "CORE", ntSiginfo, make([]byte, siginfoSize))
			b = appendNote(b, "CORE", ntAuxv, auxv)
			b = appendNote(b, "CORE", ntFile, fileNote(im.vmas))
		}
		if th.regs.floating != nil {
			b = appendNote(b, "CORE", ntPrfpreg, th.regs.floating)
		}
		if th.regs.extended != nil {
			b = appendNote(b, "LINUX", ntX86Xstate, th.regs.extended)
		}
	}
	im.notes = b
	return nil
}

// cut takes out what does not fit into max bytes of memory, the least urgent
// first, and tells how much that is.
func (im *image) cut(maxBytes uint64) {
	if maxBytes == 0 || im.data <= maxBytes {
		return
	}
	room, left := maxBytes, uint64(0)
	for _, s := range inOrder(im.segments) {
		for i, x := range s.spans {
			size := x.End - x.Start
			if size <= room {
				room -= size
				continue
			}
			to := x.Start + room&^(pageSize-1)
			for _, x := range s.spans[i:] {
				left += x.End - max(x.Start, to)
			}
			if s.spans[i].End = to; to > x.Start {
				i++
			}
			s.spans, s.fileSize, room = s.spans[:i], to-s.start, 0
			break
		}
	}
	im.data -= left
	im.missing.add("%d bytes of memory left out: max-size is %d", left, maxBytes)
}

// save writes the core. An error means that the file is of no use; what is
// merely incomplete is told in the image's missing list.
func (im *image) save(ctx context.Context, out *os.File, minFree uint64, written *atomic.Uint64) (fileSize uint64, err error) {
	size := layout(im.segments, len(im.notes))
	if err := out.Truncate(int64(size)); err != nil {
		return 0, fmt.Errorf("size core: %w", err)
	}
	if err := im.writeHead(out); err != nil {
		return 0, err
	}
	w := &writer{im: im, out: out, minFree: minFree, written: written, lost: map[*segment]uint64{}}
	stop := w.copyAll(ctx)
	if w.unread > 0 {
		im.missing.add("%d bytes could not be read, they show as zero; the first at %s", w.unread, w.firstFail)
	}
	if stop != nil {
		left := w.truncate()
		im.missing.add("%d bytes of memory left out: %v", left, stop)
		size = 0
		for _, s := range im.segments {
			size = max(size, s.offset+s.fileSize)
		}
		if err := out.Truncate(int64(size)); err != nil {
			return 0, fmt.Errorf("size core: %w", err)
		}
	}
	// The head's blocks exist: this works on a full disk, too.
	note := appendNote(nil, "ARBITER", noteMissing, im.missing.note())
	copy(im.notes, note)
	if err := im.writeHead(out); err != nil {
		return 0, err
	}
	if errors.Is(stop, ErrGone) {
		return size, stop
	}
	return size, nil
}

// writeHead writes headers and notes.
func (im *image) writeHead(out *os.File) error {
	if _, err := out.WriteAt(append(headers(im.segments, len(im.notes)), im.notes...), 0); err != nil {
		return fmt.Errorf("write headers of core: %w", err)
	}
	return nil
}

// truncate ends every segment before the first byte that it lost, and returns
// how much memory that leaves out.
func (w *writer) truncate() uint64 {
	left := uint64(0)
	for s, at := range w.lost {
		for _, x := range s.spans {
			if x.End > at {
				left += x.End - max(x.Start, at)
			}
		}
		s.fileSize = at - s.start
	}
	return left
}

// registersOf reads what can be read of each thread's registers: from the
// trap, or of a task blocked in the kernel from its syscall file.
func registersOf(list []*thread) (threads []noteThread, how string, missed missing) {
	how = "ptrace"
	for _, th := range list {
		d := processDir(th.pid).thread(th.tid)
		who, err := identify(d)
		if err != nil {
			continue // ended
		}
		var regs registers
		if th.state == trapped {
			regs, err = traced(th.tid)
		} else {
			how = "syscall"
			regs, err = blocked(d)
		}
		if err != nil {
			if who.State != 'Z' && who.State != 'X' {
				missed.add("registers of thread %d: %v", th.tid, err)
			}
			continue
		}
		threads = append(threads, noteThread{who, regs})
	}
	return slices.Clip(threads), how, missed
}
