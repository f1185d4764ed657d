package jvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Output is the file that a dump is written to, zstd-compressed.
type Output interface {
	io.Writer
	io.WriterAt
	io.Seeker
}

// gap is room left for what comes late but belongs earlier: see packer.
const gap = 2 << 20

// A packer compresses a dump and walks it on the way.
//
// Up to JDK 21 a dump is one stream. Since JDK 22 HotSpot writes the objects
// to a second file, PATH.p0, and appends that to the first one; between FIFOs
// the appending comes to nothing and is ours to do. What it leaves in the
// buffer of the first stream meanwhile, at most 1 MiB of class records and the
// 9 bytes of the end record, arrives last although all but the end record
// belongs before the objects. So a gap is left in the output there: a zstd
// file is a sequence of frames, and the rest of the gap becomes a frame that
// decoders skip.
type packer struct {
	out      Output
	enc      *zstd.Encoder
	max      uint64 // bytes of the dump
	written  uint64
	progress func(uint64)

	first, second *checked // the streams' walkers; second is nil until it begins
	held          []byte   // the end of the first stream, not yet written
	gapAt         int64
}

func newPacker(out Output, limit uint64, progress func(uint64)) (*packer, error) {
	enc, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return &packer{out: out, enc: enc, max: limit, progress: progress, first: check((*walker).main)}, nil
}

// main takes a piece of the first stream. Its last bytes are held back: they
// may be the end record.
func (p *packer) main(b []byte) error {
	if err := p.first.write(b); err != nil {
		return err
	}
	p.held = append(p.held, b...)
	if p.second != nil {
		if len(p.held) > gap/2 {
			return bad("%d bytes beside the segment", len(p.held))
		}
		return nil
	}
	n := max(0, len(p.held)-endRecord)
	err := p.write(p.held[:n])
	p.held = append(p.held[:0], p.held[n:]...)
	return err
}

// segment takes a piece of the second stream.
func (p *packer) segment(b []byte) error {
	if p.second == nil {
		if err := p.openGap(); err != nil {
			return err
		}
		p.second = check((*walker).records)
	}
	if err := p.second.write(b); err != nil {
		return err
	}
	return p.write(b)
}

func (p *packer) write(b []byte) error {
	p.written += uint64(len(b))
	if p.written > p.max {
		return fmt.Errorf("%w: over %d bytes", ErrTooLong, p.max)
	}
	p.progress(p.written)
	_, err := p.enc.Write(b)
	return err
}

// openGap ends the frame and begins another one behind the gap.
func (p *packer) openGap() error {
	if err := p.enc.Close(); err != nil {
		return err
	}
	at, err := p.out.Seek(0, io.SeekCurrent)
	if err == nil {
		p.gapAt = at
		_, err = p.out.Seek(at+gap, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("leave a gap: %w", err)
	}
	p.enc.Reset(p.out)
	return nil
}

// fillGap writes what was held of the first stream, but for the end record,
// and a skippable frame (RFC 8878, 3.1.2) over the rest.
func (p *packer) fillGap() error {
	n := max(0, len(p.held)-endRecord)
	frame := p.enc.EncodeAll(p.held[:n], nil)
	rest := gap - len(frame) - 8
	if rest < 0 {
		return bad("%d bytes do not fit before the segment", n)
	}
	frame = binary.LittleEndian.AppendUint32(frame, 0x184d2a50)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(rest))
	if _, err := p.out.WriteAt(frame, p.gapAt); err != nil {
		return err
	}
	p.written += uint64(n)
	p.held = p.held[n:]
	return nil
}

// finish writes what is left and judges the dump.
func (p *packer) finish() (Heap, error) {
	if p.second != nil {
		if err := p.fillGap(); err != nil {
			return Heap{}, err
		}
	}
	if err := p.write(p.held); err != nil {
		return Heap{}, err
	}
	if err := p.enc.Close(); err != nil {
		return Heap{}, err
	}
	err := p.first.end()
	if p.second != nil {
		err = errors.Join(err, p.second.end())
		p.first.w.merge(p.second.w)
	}
	if err != nil {
		return Heap{}, err
	}
	return p.first.w.heap(), nil
}

// stop lets go without a result.
func (p *packer) stop() {
	p.first.stop()
	if p.second != nil {
		p.second.stop()
	}
	p.enc.Reset(nil) // waits for blocks in the works
}

// checked is a walk beside the compression.
type checked struct {
	w    *walker
	pipe *io.PipeWriter
	done chan error
}

func check(walk func(*walker) error) *checked {
	r, pw := io.Pipe()
	c := &checked{w: newWalker(r), pipe: pw, done: make(chan error, 1)}
	go func() {
		err := walk(c.w)
		_ = r.CloseWithError(err) // never fails; the writer sees err
		c.done <- err
	}()
	return c
}

func (c *checked) write(b []byte) error {
	_, err := c.pipe.Write(b)
	return err
}

func (c *checked) end() error {
	_ = c.pipe.Close() // never fails
	return <-c.done
}

func (c *checked) stop() { _ = c.pipe.CloseWithError(io.ErrUnexpectedEOF) }
