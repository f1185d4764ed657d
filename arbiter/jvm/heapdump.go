package jvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// DumpOptions say how to dump a heap.
type DumpOptions struct {
	Live     bool   // collect first, and write live objects only
	MaxBytes uint64 // of the dump, before compression
	// Progress is told how much was dumped of about how much; 0 is unknown.
	Progress func(done, total uint64)
}

// A Dump is a heap dump that was written and found whole.
type Dump struct {
	Heap
	Via string // "fifo"; "file" where the JVM cannot write to a FIFO; "core"
	JDK int    // major version; 0 for a core
}

// HeapDump has the JVM j write a heap dump, which is compressed into out. c
// carries the command: j itself, or a Jcmd for the same process.
//
// From JDK 17 on the dump streams through a FIFO. Older JDKs seek in it, so
// they write a file in the container, which is charged to it and takes its
// disk until it is read; where its /tmp is memory that cannot work.
//
// A dump is good only if the JVM says so and a walk over every object ends at
// an end record. When ctx ends early nothing stays behind in the container.
func HeapDump(ctx context.Context, j *JVM, c Commander, o DumpOptions, out Output) (Dump, error) {
	version, err := Version(ctx, c)
	if err != nil {
		return Dump{}, err
	}
	info, err := HeapInfo(ctx, c)
	if err != nil && (ctx.Err() != nil || errors.Is(err, proc.ErrGone)) {
		return Dump{}, err // else an old JVM that does not know the command
	}
	if bytes.Contains(info, []byte("ZHeap")) {
		return Dump{}, fmt.Errorf("dump heap of jvm %d: ZGC keeps the heap in shared memory and exits at the limit: %w",
			j.pid, ErrTakeCore)
	}
	s, err := newSpool(ctx, j)
	if err != nil {
		return Dump{}, fmt.Errorf("dump heap of jvm %d: %w", j.pid, err)
	}
	defer s.remove()
	d := dumper{spool: s, commander: c, options: o, version: version, expect: heapUsed(info)}
	dump, err := d.dump(ctx, out)
	if err != nil {
		return Dump{}, fmt.Errorf("dump heap of jvm %d: %w", j.pid, err)
	}
	return dump, nil
}

type dumper struct {
	spool     *spool
	commander Commander
	options   DumpOptions
	version   int
	expect    uint64 // about the bytes of the dump; 0 is unknown
}

func (d *dumper) dump(ctx context.Context, out Output) (Dump, error) {
	p, err := newPacker(out, d.options.MaxBytes, d.progress())
	if err != nil {
		return Dump{}, err
	}
	defer p.stop()
	via, fill := "fifo", d.stream
	if d.version < 17 {
		via, fill = "file", d.file
	}
	if err := fill(ctx, p); err != nil {
		return Dump{}, err
	}
	heap, err := p.finish()
	return Dump{Heap: heap, Via: via, JDK: d.version}, err
}

// progress tells every MiB, with what is used of the heap as the goal.
func (d *dumper) progress() func(uint64) {
	var told uint64
	return func(done uint64) {
		if d.options.Progress != nil && done >= told+1<<20 {
			told = done
			d.options.Progress(done, max(done, d.expect))
		}
	}
}

// usedKB matches "total 653312K, used 110264K" of every generation, in heap
// info. Metaspace is told in the same words, without a total.
var usedKB = regexp.MustCompile(`(?:total|committed) \d+K, used (\d{1,15})K \[`)

// heapUsed is what heap info says of the bytes in use.
func heapUsed(info []byte) uint64 {
	var sum uint64
	for _, m := range usedKB.FindAllSubmatch(info, 16) {
		if kb, err := strconv.ParseUint(string(m[1]), 10, 50); err == nil {
			sum += kb << 10
		}
	}
	return sum
}

// order asks for the dump and judges the reply: some failures are told in
// nothing but its text.
func (d *dumper) order(ctx context.Context) error {
	command := "GC.heap_dump"
	if !d.options.Live {
		command += " -all"
	}
	if d.version >= 17 {
		command += " -overwrite" // the FIFO exists already
	}
	reply, err := d.commander.Command(ctx, command+" "+d.spool.path(dumpName))
	if err != nil {
		return err
	}
	if !bytes.Contains(reply, []byte("Heap dump file created")) {
		return fmt.Errorf("%w: the jvm says %s", ErrBadDump, firstLine(lastLine(reply)))
	}
	return nil
}

func lastLine(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return b[bytes.LastIndexByte(b, '\n')+1:]
}

// stream reads the dump from FIFOs while the JVM writes it.
func (d *dumper) stream(ctx context.Context, p *packer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := d.spool.fifo(ctx, dumpName)
	if err != nil {
		return err
	}
	defer d.letGo(first)
	second, err := d.spool.fifo(ctx, segmentName)
	if err != nil {
		return err
	}
	defer d.letGo(second)
	reply, err := newSignal()
	if err != nil {
		return err
	}
	go func() { reply.set(d.order(ctx)) }()
	err = pump(ctx, p, first, second, reply.fd)
	cancel() // after an error: the JVM finds the FIFOs closed and gives up
	orderErr := reply.wait()
	if err != nil {
		return err
	}
	return orderErr
}

// letGo removes the FIFOs and then closes one. In the other order a JVM that
// opens its segment to append it, after we gave up, would find a FIFO without a
// writer and wait for one for ever.
func (d *dumper) letGo(fifo int) {
	d.spool.remove()
	_ = unix.Close(fifo) // what is still in it is not wanted
}

// pump moves data until the reply is there and both FIFOs are empty. Nothing
// of the second stream is taken before the first one was read empty, since
// the JVM begins it only then.
func pump(ctx context.Context, p *packer, first, second, reply int) error {
	buf := make([]byte, 256<<10)
	for {
		ready, err := poll(first, second, reply)
		if err != nil {
			return err
		}
		if ready[0] || ready[1] {
			if err := drain(ctx, first, buf, p.main); err != nil {
				return err
			}
		}
		if ready[1] {
			if err := drain(ctx, second, buf, p.segment); err != nil {
				return err
			}
		}
		if ready[2] && !ready[0] && !ready[1] {
			return nil
		}
	}
}

// drain reads a FIFO until it is empty or ctx is done.
func drain(ctx context.Context, fd int, buf []byte, take func([]byte) error) error {
	for ctx.Err() == nil {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read fifo: %w", err)
		}
		if err := take(buf[:n]); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// file has the JVM write a file, and reads it.
func (d *dumper) file(ctx context.Context, p *packer) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.spool.dir, &st); err != nil {
		return fmt.Errorf("statfs /tmp: %w", err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		return fmt.Errorf("JDK %d can only dump to a file, and its /tmp is memory: %w", d.version, ErrTakeCore)
	}
	if free := st.Bavail * uint64(st.Bsize); free < d.options.MaxBytes {
		return fmt.Errorf("JDK %d can only dump to a file, and its /tmp has %d of %d bytes free: %w",
			d.version, free, d.options.MaxBytes, ErrTakeCore)
	}
	if err := d.order(ctx); err != nil {
		return err
	}
	f, err := d.spool.regular(ctx, dumpName)
	if err != nil {
		return err
	}
	defer f.Close()
	return copyInto(ctx, p, f)
}

// copyInto reads a whole dump from a file.
func copyInto(ctx context.Context, p *packer, f *os.File) error {
	buf := make([]byte, 256<<10)
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		if n > 0 {
			if err := p.main(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}
	return ctx.Err()
}
