package jvm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ErrBadDump says that a file is no whole HPROF dump.
var ErrBadDump = errors.New("not a whole heap dump")

// Record and sub-record tags of HPROF 1.0.2 (heapDumper.cpp in HotSpot).
const (
	tagUTF8        = 0x01
	tagLoadClass   = 0x02
	tagHeapDump    = 0x0c
	tagSegment     = 0x1c
	tagEnd         = 0x2c
	subClass       = 0x20
	subInstance    = 0x21
	subObjectArray = 0x22
	subPrimArray   = 0x23
)

const (
	idSize    = 8 // of an object id; 64-bit JVMs only
	endRecord = 9 // bytes of the record that ends a dump
	// Bounds of what a hostile dump can make us remember.
	maxNameBytes = 64 << 20
	maxName      = 64 << 10
	maxClasses   = 1 << 20
)

// A Class is one line of a heap's class histogram.
type Class struct {
	Name      string // as in Java source: "byte[]", "shop.Cart$Item"
	Instances uint64
	Bytes     uint64 // of fields and elements, without object headers
}

// A Heap is what a walk over a dump found.
type Heap struct {
	Bytes   uint64  // of the dump
	Objects uint64  // instances and arrays
	Classes []Class // by bytes, largest first
}

// WalkHeap reads a whole dump, record by record, down to every object, and
// fails with ErrBadDump unless the walk ends cleanly: at an end record where
// the heap is in segments, at the end of the file where it is one record, as
// jhsdb and JDK 8 write small heaps.
func WalkHeap(r io.Reader) (Heap, error) {
	w := newWalker(r)
	if err := w.main(); err != nil {
		return Heap{}, err
	}
	return w.heap(), nil
}

// A walker reads one stream. Since JDK 22 a dump is two: see joiner.
type walker struct {
	r     *bufio.Reader
	bytes uint64
	err   error

	names     map[uint64]string
	nameBytes int
	classes   map[uint64]uint64 // class id → name id
	count     map[uint64]*Class // class id → totals; primitive arrays by type
	objects   uint64
	ended     bool
	plain     bool // a heap dump record was seen, which needs no end record
	segmented bool // segments were seen, which need one
}

func newWalker(r io.Reader) *walker {
	return &walker{
		r: bufio.NewReaderSize(r, 256<<10), names: map[uint64]string{},
		classes: map[uint64]uint64{}, count: map[uint64]*Class{},
	}
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadDump, fmt.Sprintf(format, args...))
}

// main walks a stream that begins with the header and ends with the end record.
func (w *walker) main() error {
	const magic = "JAVA PROFILE 1.0.2\x00"
	if string(w.take(len(magic))) != magic {
		return bad("it does not begin as one")
	}
	if id := w.u4(); w.err == nil && id != idSize {
		return bad("ids of %d bytes", id)
	}
	w.skip(8) // milliseconds since 1970
	if err := w.records(); err != nil {
		return err
	}
	if !w.ended && (!w.plain || w.segmented) {
		return bad("no end record after %d bytes", w.bytes)
	}
	return nil
}

// records walks records to the end of the stream. Nothing may follow the end
// record.
func (w *walker) records() error {
	for {
		if _, err := w.r.Peek(1); errors.Is(err, io.EOF) && w.err == nil {
			return nil
		}
		if w.ended {
			return bad("data after the end record")
		}
		at := w.bytes
		if err := w.record(); err != nil {
			return err
		}
		if w.err != nil {
			return bad("record at byte %d: %v", at, w.err)
		}
	}
}

// record walks one record: tag u1, time u4, length u4, body.
func (w *walker) record() error {
	tag := w.u1()
	w.skip(4)
	n := uint64(w.u4())
	switch tag {
	case tagUTF8:
		w.utf8(n)
	case tagLoadClass:
		w.loadClass(n)
	case tagHeapDump:
		w.plain = true
		return w.segment(n)
	case tagSegment:
		w.segmented = true
		return w.segment(n)
	case tagEnd:
		w.skip(n)
		w.ended = true
	default:
		w.skip(n)
	}
	return nil
}

func (w *walker) utf8(n uint64) {
	if n < idSize || n > maxName || w.nameBytes+int(n) > maxNameBytes {
		w.skip(n)
		return
	}
	id := w.id()
	w.names[id] = string(w.take(int(n) - idSize))
	w.nameBytes += int(n)
}

func (w *walker) loadClass(n uint64) {
	if n != 2*idSize+8 || len(w.classes) >= maxClasses {
		w.skip(n)
		return
	}
	w.skip(4)
	class := w.id()
	w.skip(4)
	w.classes[class] = w.id()
}

// segment walks the sub-records of n bytes of heap.
func (w *walker) segment(n uint64) error {
	for end := w.bytes + n; w.err == nil && w.bytes < end; {
		at := w.bytes
		if err := w.object(); err != nil {
			return err
		}
		if w.err == nil && w.bytes > end {
			return bad("an object at byte %d ends beyond its segment", at)
		}
	}
	return nil
}

// rootSizes are the bodies of the sub-records that name roots.
var rootSizes = map[byte]uint64{
	0xff: idSize,     // unknown
	0x01: 2 * idSize, // JNI global
	0x02: idSize + 8, // JNI local
	0x03: idSize + 8, // Java frame
	0x04: idSize + 4, // native stack
	0x05: idSize,     // sticky class
	0x06: idSize + 4, // thread block
	0x07: idSize,     // monitor used
	0x08: idSize + 8, // thread object
}

// elementSizes are the basic types.
var elementSizes = map[byte]uint64{2: idSize, 4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8}

func (w *walker) object() error {
	tag := w.u1()
	switch tag {
	case subInstance:
		w.skip(idSize + 4)
		class := w.id()
		n := uint64(w.u4())
		w.skip(n)
		w.add(class, n)
	case subObjectArray:
		w.skip(idSize + 4)
		n := uint64(w.u4()) * idSize
		class := w.id()
		w.skip(n)
		w.add(class, n)
	case subPrimArray:
		w.skip(idSize + 4)
		n := uint64(w.u4())
		typ := w.u1()
		size, ok := elementSizes[typ]
		if !ok && w.err == nil {
			return bad("array of unknown type %d", typ)
		}
		w.skip(n * size)
		w.add(uint64(typ), n*size)
	case subClass:
		return w.class()
	default:
		n, ok := rootSizes[tag]
		if !ok && w.err == nil {
			return bad("unknown sub-record 0x%02x before byte %d", tag, w.bytes)
		}
		w.skip(n)
	}
	return nil
}

// class walks a class dump: constants, static fields with values, and fields.
func (w *walker) class() error {
	w.skip(idSize + 4 + 6*idSize + 4)
	for range w.u2() {
		w.skip(2)
		if err := w.value(); err != nil {
			return err
		}
	}
	for range w.u2() {
		w.skip(idSize)
		if err := w.value(); err != nil {
			return err
		}
	}
	w.skip(uint64(w.u2()) * (idSize + 1))
	return nil
}

func (w *walker) value() error {
	typ := w.u1()
	size, ok := elementSizes[typ]
	if !ok && w.err == nil {
		return bad("field of unknown type %d", typ)
	}
	w.skip(size)
	return nil
}

func (w *walker) add(class, n uint64) {
	c := w.count[class]
	if c == nil {
		if len(w.count) >= maxClasses {
			return
		}
		c = &Class{}
		w.count[class] = c
	}
	c.Instances++
	c.Bytes += n
	w.objects++
}

// merge adds what another walker found.
func (w *walker) merge(o *walker) {
	for id, c := range o.count {
		mine := w.count[id]
		if mine == nil {
			w.count[id] = c
			continue
		}
		mine.Instances += c.Instances
		mine.Bytes += c.Bytes
	}
	w.objects += o.objects
	w.bytes += o.bytes
}
