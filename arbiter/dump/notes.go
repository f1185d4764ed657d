package dump

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// Note types of a core file, linux/elf.h. GNU debuggers read the first thread
// as the one that matters, and expect the notes of the process behind its
// first note.
const (
	ntPrpsinfo = 3
	ntAuxv     = 6
	ntSiginfo  = 0x53494749
	ntFile     = 0x46494c45

	prstatusSize = 336 // struct elf_prstatus of amd64
	prpsinfoSize = 136 // struct elf_prpsinfo of amd64
	siginfoSize  = 128

	// noteMissing is of the owner "ARBITER": what the core lacks, in words.
	noteMissing     = 1
	noteMissingSize = 4096
)

// An identity is a process or thread as the core names it: by its ids in its
// own pid namespace, as the kernel's own cores do. The JVM and Go compare
// them with ids that the program wrote down itself.
type identity struct {
	stat
	id, ppid, pgrp, session int
	uid, gid                uint32
	pending, blocked        uint64 // signal sets
}

// identify reads who the task d is.
func identify(d procDir) (identity, error) {
	s, err := d.stat()
	if err != nil {
		return identity{}, err
	}
	status, err := d.read("status")
	if err != nil {
		return identity{}, err
	}
	inner := func(key string, outer int) int {
		ids := strings.Fields(statusField(status, key))
		if len(ids) < 2 {
			return outer
		}
		n, err := strconv.Atoi(ids[len(ids)-1])
		if err != nil {
			return outer
		}
		return n
	}
	number := func(key string) uint32 {
		first, _, _ := strings.Cut(statusField(status, key), "\t")
		n, _ := strconv.ParseUint(first, 10, 32) // a missing id reads as root's
		return uint32(n)
	}
	mask := func(key string) uint64 {
		n, _ := strconv.ParseUint(statusField(status, key), 16, 64)
		return n
	}
	own, _ := strconv.Atoi(statusField(status, "Pid"))
	return identity{
		stat: s, ppid: s.PPid, id: inner("NSpid", own), pgrp: inner("NSpgid", s.Pgrp), session: inner("NSsid", s.Session),
		uid: number("Uid"), gid: number("Gid"),
		pending: mask("SigPnd"), blocked: mask("SigBlk"),
	}, nil
}

// prstatus is struct elf_prstatus.
func prstatus(who identity, general []byte) []byte {
	b := make([]byte, prstatusSize)
	le := binary.LittleEndian
	le.PutUint64(b[16:], who.pending)
	le.PutUint64(b[24:], who.blocked)
	le.PutUint32(b[32:], uint32(who.id))
	le.PutUint32(b[36:], uint32(who.ppid))
	le.PutUint32(b[40:], uint32(who.pgrp))
	le.PutUint32(b[44:], uint32(who.session))
	for i, ticks := range []uint64{who.UTime, who.STime, who.CUTime, who.CSTime} {
		le.PutUint64(b[48+16*i:], ticks/100)
		le.PutUint64(b[56+16*i:], ticks%100*10000)
	}
	copy(b[112:112+generalSize], general)
	le.PutUint32(b[112+generalSize:], 1) // pr_fpvalid
	return b
}

// prpsinfo is struct elf_prpsinfo.
func prpsinfo(who identity, cmdline []byte) []byte {
	b := make([]byte, prpsinfoSize)
	le := binary.LittleEndian
	b[0] = byte(max(strings.IndexByte("RSDTZW", who.State), 0))
	b[1] = who.State
	if who.State == 'Z' {
		b[2] = 1
	}
	b[3] = byte(int8(who.Nice))
	le.PutUint64(b[8:], who.Flags)
	le.PutUint32(b[16:], who.uid)
	le.PutUint32(b[20:], who.gid)
	le.PutUint32(b[24:], uint32(who.id))
	le.PutUint32(b[28:], uint32(who.ppid))
	le.PutUint32(b[32:], uint32(who.pgrp))
	le.PutUint32(b[36:], uint32(who.session))
	copy(b[40:55], who.Comm)
	args := bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '})
	copy(b[56:135], args)
	return b
}

// fileNote is NT_FILE: which file lies where. Offsets count in pages.
func fileNote(vmas []vma) []byte {
	var table, names []byte
	le := binary.LittleEndian
	count := uint64(0)
	for _, v := range vmas {
		if !v.file() {
			continue
		}
		count++
		table = le.AppendUint64(table, v.Start)
		table = le.AppendUint64(table, v.End)
		table = le.AppendUint64(table, v.Offset/pageSize)
		names = append(append(names, v.Name...), 0)
	}
	head := le.AppendUint64(nil, count)
	head = le.AppendUint64(head, pageSize)
	return append(append(head, table...), names...)
}

// appendNote appends one note; name and content are padded to 4 bytes.
func appendNote(b []byte, owner string, kind uint32, content []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(owner)+1))
	b = le.AppendUint32(b, uint32(len(content)))
	b = le.AppendUint32(b, kind)
	b = pad(append(append(b, owner...), 0), 4)
	return pad(append(b, content...), 4)
}

func pad(b []byte, to int) []byte {
	for len(b)%to != 0 {
		b = append(b, 0)
	}
	return b
}
