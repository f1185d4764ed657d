package proc

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

var errNotELF = errors.New("not a 64-bit ELF file")

const (
	maxELFBytes = 16 << 20 // read of one file in all
	maxSymbols  = 1 << 16  // looked at in one search
	maxNotes    = 64 << 10
	maxProgs    = 256
	maxData     = 256 << 10 // searched for Go's build info
)

// An elfFile answers the questions of detection about a file that may be made
// to mislead. It reads program headers alone: sections can be stripped, and
// those that debug/elf reads on opening may be compressed without bound.
type elfFile struct {
	f     *os.File
	r     *boundedReader
	progs []elf.Prog64
	dyn   map[elf.DynTag]uint64
}

// openELF opens a file by a /proc magic link. O_NONBLOCK: a FIFO or a device
// that was made to look like a program must not block us.
func openELF(name string) (*elfFile, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	e, err := parseELF(f)
	if err != nil {
		_ = f.Close() // read only: nothing can be lost
		return nil, err
	}
	e.f = f
	return e, nil
}

func (e *elfFile) Close() error { return e.f.Close() }

func parseELF(r io.ReaderAt) (*elfFile, error) {
	e := &elfFile{r: &boundedReader{r: r, left: maxELFBytes}}
	var h elf.Header64
	if _, err := binary.Decode(e.read(0, 64), binary.LittleEndian, &h); err != nil {
		return nil, errNotELF
	}
	if string(h.Ident[:4]) != elf.ELFMAG || elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64 ||
		elf.Data(h.Ident[elf.EI_DATA]) != elf.ELFDATA2LSB || h.Phentsize != 56 {
		return nil, errNotELF
	}
	e.progs = make([]elf.Prog64, min(int(h.Phnum), maxProgs))
	if _, err := binary.Decode(e.read(h.Phoff, 56*uint64(len(e.progs))), binary.LittleEndian, e.progs); err != nil {
		return nil, errNotELF
	}
	e.dyn = e.dynamic()
	return e, nil
}

// dynamic reads PT_DYNAMIC, which the loader needs: unlike sections it cannot
// be stripped.
func (e *elfFile) dynamic() map[elf.DynTag]uint64 {
	dyn := map[elf.DynTag]uint64{}
	for _, p := range e.progs {
		if elf.ProgType(p.Type) != elf.PT_DYNAMIC {
			continue
		}
		b := e.read(p.Off, min(p.Filesz, 16<<10))
		for ; len(b) >= 16; b = b[16:] {
			tag := elf.DynTag(binary.LittleEndian.Uint64(b))
			if tag == elf.DT_NULL {
				break
			}
			dyn[tag] = binary.LittleEndian.Uint64(b[8:])
		}
	}
	return dyn
}

// read reads n bytes at a file offset; fewer at the end of the file.
func (e *elfFile) read(off, n uint64) []byte {
	if off > 1<<62 || n > maxELFBytes {
		return nil
	}
	b := make([]byte, n)
	got, _ := e.r.ReadAt(b, int64(off)) // what is missing is not there
	return b[:got]
}

// at reads n bytes at a virtual address.
func (e *elfFile) at(addr, n uint64) []byte {
	for _, p := range e.progs {
		if elf.ProgType(p.Type) == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return e.read(p.Off+addr-p.Vaddr, min(n, p.Filesz-(addr-p.Vaddr)))
		}
	}
	return nil
}

func (e *elfFile) u32(addr uint64) (uint32, bool) {
	b := e.at(addr, 4)
	if len(b) < 4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b), true
}

// defines looks a symbol up as the dynamic loader does, in DT_GNU_HASH: a few
// reads, whatever the size of the table (node exports 50 000 symbols).
func (e *elfFile) defines(name string) bool {
	table, ok := e.dyn[elf.DT_GNU_HASH]
	if !ok {
		return false
	}
	head := e.at(table, 16)
	if len(head) < 16 {
		return false
	}
	buckets := binary.LittleEndian.Uint32(head)
	first := binary.LittleEndian.Uint32(head[4:])
	bloom := binary.LittleEndian.Uint32(head[8:])
	if buckets == 0 {
		return false
	}
	h := gnuHash(name)
	bucketsAt := table + 16 + 8*uint64(bloom)
	chainAt := bucketsAt + 4*uint64(buckets)
	i, ok := e.u32(bucketsAt + 4*uint64(h%buckets))
	if !ok || i < first {
		return false
	}
	for range maxSymbols {
		ch, ok := e.u32(chainAt + 4*uint64(i-first))
		if !ok {
			return false
		}
		if ch|1 == h|1 && e.symbolName(uint64(i), name) {
			return true
		}
		if ch&1 != 0 {
			return false
		}
		i++
	}
	return false
}

// importsAny tells whether the file needs one of the symbols from elsewhere.
// In a file with DT_GNU_HASH those come before the hashed ones.
func (e *elfFile) importsAny(names ...string) bool {
	table, ok := e.dyn[elf.DT_GNU_HASH]
	if !ok {
		return false
	}
	first, _ := e.u32(table + 4)
	for i := range uint64(min(first, 4096)) {
		for _, name := range names {
			if e.symbolName(i, name) {
				return true
			}
		}
	}
	return false
}

// symbolName tells whether symbol i is called name.
func (e *elfFile) symbolName(i uint64, name string) bool {
	off, ok := e.u32(e.dyn[elf.DT_SYMTAB] + i*elf.Sym64Size)
	if !ok {
		return false
	}
	b := e.at(e.dyn[elf.DT_STRTAB]+uint64(off), uint64(len(name))+1)
	return len(b) == len(name)+1 && string(b[:len(name)]) == name && b[len(name)] == 0
}

func gnuHash(name string) uint32 {
	h := uint32(5381)
	for i := range len(name) {
		h = h*33 + uint32(name[i])
	}
	return h
}

// goBuildInfo begins what the Go linker writes, aligned to 16 bytes, into
// writable data since Go 1.13.
var goBuildInfo = []byte("\xff Go buildinf:")

// isGo looks for the Go linker's build id note (type 4, name "Go"), which a
// stripped program keeps, or for its build info.
func (e *elfFile) isGo() bool {
	for _, p := range e.progs {
		switch {
		case elf.ProgType(p.Type) == elf.PT_NOTE:
			if hasGoNote(e.read(p.Off, min(p.Filesz, maxNotes))) {
				return true
			}
		case elf.ProgType(p.Type) == elf.PT_LOAD && elf.ProgFlag(p.Flags)&elf.PF_W != 0:
			if hasBuildInfo(p.Vaddr, e.read(p.Off, min(p.Filesz, maxData))) {
				return true
			}
		}
	}
	return false
}

func hasBuildInfo(addr uint64, b []byte) bool {
	for off := 0; ; {
		i := bytes.Index(b[off:], goBuildInfo)
		if i < 0 {
			return false
		}
		if off += i; (addr+uint64(off))%16 == 0 {
			return true
		}
		off++
	}
}

func hasGoNote(b []byte) bool {
	for len(b) >= 12 {
		name := uint64(binary.LittleEndian.Uint32(b))
		desc := uint64(binary.LittleEndian.Uint32(b[4:]))
		typ := binary.LittleEndian.Uint32(b[8:])
		b = b[12:]
		if typ == 4 && name == 4 && bytes.HasPrefix(b, []byte("Go\x00\x00")) {
			return true
		}
		next := (name+3)&^3 + (desc+3)&^3
		if next > uint64(len(b)) {
			return false
		}
		b = b[next:]
	}
	return false
}

// A boundedReader fails once a file made us read too much of it.
type boundedReader struct {
	r    io.ReaderAt
	left int64
}

func (b *boundedReader) ReadAt(p []byte, off int64) (int, error) {
	if int64(len(p)) > b.left {
		return 0, fmt.Errorf("read more than %d bytes of an ELF file", maxELFBytes)
	}
	n, err := b.r.ReadAt(p, off)
	b.left -= int64(n)
	return n, err
}
