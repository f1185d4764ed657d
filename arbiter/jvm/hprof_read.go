package jvm

import (
	"encoding/binary"
	"io"
)

// The readers below keep the first error; what they return after it is zero.

func (w *walker) take(n int) []byte {
	if w.err != nil {
		return nil
	}
	b := make([]byte, n)
	got, err := io.ReadFull(w.r, b)
	w.bytes += uint64(got)
	w.err = err
	return b[:got]
}

func (w *walker) skip(n uint64) {
	for n > 0 && w.err == nil {
		got, err := w.r.Discard(int(min(n, 1<<30)))
		w.bytes += uint64(got)
		n -= uint64(got)
		w.err = err
	}
}

// num reads a big-endian number of n bytes without allocating.
func (w *walker) num(n int) uint64 {
	if w.err != nil {
		return 0
	}
	b, err := w.r.Peek(n)
	if err != nil {
		w.err = io.ErrUnexpectedEOF
		return 0
	}
	var v uint64
	switch n {
	case 1:
		v = uint64(b[0])
	case 2:
		v = uint64(binary.BigEndian.Uint16(b))
	case 4:
		v = uint64(binary.BigEndian.Uint32(b))
	default:
		v = binary.BigEndian.Uint64(b)
	}
	_, _ = w.r.Discard(n) // n bytes are buffered
	w.bytes += uint64(n)
	return v
}

func (w *walker) u1() byte   { return byte(w.num(1)) }
func (w *walker) u2() uint16 { return uint16(w.num(2)) }
func (w *walker) u4() uint32 { return uint32(w.num(4)) }
func (w *walker) id() uint64 { return w.num(8) }
