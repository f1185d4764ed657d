package dump

import (
	"encoding/binary"
)

const (
	ehdrSize = 64
	phdrSize = 56
	shdrSize = 64
	// pnXnum in e_phnum says that the true number of program headers, too big
	// for 16 bits, is in sh_info of section 0.
	pnXnum = 0xffff
)

// A segment is one PT_LOAD of the core: a mapping, or a part of one.
type segment struct {
	vma      *vma
	start    uint64
	memSize  uint64
	fileSize uint64 // the rest of memSize is not in the file
	offset   uint64 // in the file
	spans    []span // what is not a hole, within [start, start+fileSize)
	urgent   int    // lower is written first
}

// headersSize is how much room the headers of n program headers take.
func headersSize(n int) uint64 {
	size := uint64(ehdrSize + n*phdrSize)
	if n >= pnXnum {
		size += shdrSize
	}
	return size
}

// layout gives every segment its place behind headers and notes, and returns
// the file's size.
func layout(segments []segment, notesSize int) uint64 {
	at := pageUp(headersSize(len(segments)+1) + uint64(notesSize))
	for i := range segments {
		segments[i].offset = at
		at += segments[i].fileSize
	}
	return at
}

func pageUp(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// headers is the ELF header, the program headers (the notes first) and, where
// there are more than 65534, the section header that counts them.
func headers(segments []segment, notesSize int) []byte {
	n := len(segments) + 1
	le := binary.LittleEndian
	b := make([]byte, 0, headersSize(n))
	b = append(b, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0) // 64-bit, little endian
	b = le.AppendUint16(b, 4)                                              // ET_CORE
	b = le.AppendUint16(b, 62)                                             // EM_X86_64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, 0)        // entry
	b = le.AppendUint64(b, ehdrSize) // program headers
	phnum, sections, sectionsAt := n, 0, uint64(0)
	if n >= pnXnum {
		phnum, sections, sectionsAt = pnXnum, 1, uint64(ehdrSize+n*phdrSize)
	}
	b = le.AppendUint64(b, sectionsAt)
	b = le.AppendUint32(b, 0) // flags
	for _, v := range []int{ehdrSize, phdrSize, phnum, shdrSize * sections, sections, 0} {
		b = le.AppendUint16(b, uint16(v))
	}
	b = appendPhdr(b, 4, 0, headersSize(n), 0, uint64(notesSize), 0, 4) // PT_NOTE
	for _, s := range segments {
		b = appendPhdr(b, 1, s.vma.flags(), s.offset, s.start, s.fileSize, s.memSize, pageSize)
	}
	if sections == 1 {
		section := make([]byte, shdrSize)
		le.PutUint64(section[32:], 1)         // sh_size, as the kernel writes it
		le.PutUint32(section[44:], uint32(n)) // sh_info
		b = append(b, section...)
	}
	return b
}

func appendPhdr(b []byte, kind, flags uint32, offset, addr, fileSize, memSize, align uint64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, kind)
	b = le.AppendUint32(b, flags)
	for _, v := range []uint64{offset, addr, 0, fileSize, memSize, align} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// flags are p_flags: execute 1, write 2, read 4.
func (v vma) flags() uint32 {
	var f uint32
	if v.Exec {
		f |= 1
	}
	if v.Write {
		f |= 2
	}
	if v.Read {
		f |= 4
	}
	return f
}
