package jvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// Native is where a JVM's memory is. A heap dump says nothing of what lies
// outside the heap.
type Native struct {
	// NMT is the JVM's own account, where it runs with
	// -XX:NativeMemoryTracking; else nil.
	NMT []byte
	// Parts are the resident and swapped bytes by kind, as the kernel sees
	// them, largest kind of memory first as listed in partNames.
	Parts []Part
}

// A Part is one kind of memory.
type Part struct {
	Name           string
	Resident, Swap uint64 // bytes
}

// Kinds of memory. What glibc maps for one large allocation looks like the
// memory of a direct buffer, which is one.
const (
	partHeap      = "java heap"
	partMetaspace = "metaspace"
	partCode      = "code cache"
	partStacks    = "thread stacks"
	partMalloc    = "malloc arenas"
	partDirect    = "direct buffers and large malloc"
	partFiles     = "files and libraries"
	partOther     = "other"
)

var partNames = []string{partHeap, partMetaspace, partCode, partStacks, partMalloc, partDirect, partFiles, partOther}

// maxMappings is how many mappings are told apart; the rest is "other".
const maxMappings = 512

// NativeMemory splits a JVM's resident memory into kinds. The JVM tells where
// its heap, code and metaspace lie; stacks are where threads' stack pointers
// are, arenas begin at multiples of 64 MiB.
func NativeMemory(ctx context.Context, fs proc.FS, c Commander) (Native, error) {
	var n Native
	if nmt, err := c.Command(ctx, "VM.native_memory summary"); err == nil && !bytes.Contains(nmt, []byte("not enabled")) {
		n.NMT = nmt
	}
	where, err := layout(ctx, fs, c)
	if err != nil {
		return n, err
	}
	total, err := fs.SmapsRollup(ctx, c.Pid())
	if err != nil {
		return n, err
	}
	maps, err := fs.LargestMappings(ctx, c.Pid(), maxMappings)
	if err != nil {
		return n, err
	}
	n.Parts = split(maps, total, where)
	return n, nil
}

// An area is a range of addresses of one kind.
type area struct {
	part       string
	start, end uint64
	most       uint64 // bytes that can be resident; 0: all
	whole      bool   // a mapping that it touches is of this kind as a whole
}

// layout asks the JVM and the kernel what lies where. Commands that an old JVM
// does not know leave their kind to "other".
func layout(ctx context.Context, fs proc.FS, c Commander) ([]area, error) {
	var out []area
	for _, q := range []struct {
		command string
		parse   func([]byte) []area
	}{
		{"GC.heap_info", func(b []byte) []area { return brackets(partHeap, b) }},
		{"Compiler.codecache", func(b []byte) []area { return brackets(partCode, b) }},
		{"VM.metaspace vslist", parseMetaspace},
	} {
		b, err := c.Command(ctx, q.command)
		if err != nil && (ctx.Err() != nil || errors.Is(err, proc.ErrGone)) {
			return nil, err
		}
		out = append(out, q.parse(b)...)
	}
	for _, sp := range stackPointers(fs, c.Pid()) {
		out = append(out, area{part: partStacks, start: sp, end: sp + 1, whole: true})
	}
	return out, nil
}

// bracket matches HotSpot's ranges: [low, high) and [low, used, high].
var bracket = regexp.MustCompile(`\[0x([0-9a-f]{1,16}), (?:0x[0-9a-f]{1,16}, )?0x([0-9a-f]{1,16})[\])]`)

func brackets(part string, b []byte) []area {
	var out []area
	for _, m := range bracket.FindAllSubmatch(b, 64) {
		lo, err1 := strconv.ParseUint(string(m[1]), 16, 64)
		hi, err2 := strconv.ParseUint(string(m[2]), 16, 64)
		if err1 == nil && err2 == nil && lo < hi {
			out = append(out, area{part: part, start: lo, end: hi})
		}
	}
	return out
}

// metaspaceNode matches
// "node #0: base 0x00007fadef000000: reserved=65536.00 KB, committed=192.00 KB".
var metaspaceNode = regexp.MustCompile(`base 0x([0-9a-f]{1,16}): reserved=(\d{1,12})[.\d]* KB, committed=(\d{1,12})`)

func parseMetaspace(b []byte) []area {
	var out []area
	for _, m := range metaspaceNode.FindAllSubmatch(b, 256) {
		base, err1 := strconv.ParseUint(string(m[1]), 16, 64)
		reserved, err2 := strconv.ParseUint(string(m[2]), 10, 64)
		committed, err3 := strconv.ParseUint(string(m[3]), 10, 64)
		if err1 == nil && err2 == nil && err3 == nil {
			out = append(out, area{part: partMetaspace, start: base, end: base + reserved<<10, most: (committed + 1) << 10})
		}
	}
	return out
}

// stackPointers reads where the blocked threads' stacks are:
//
//	202 0x7f12 0x189 0x0 0x0 0x0 0xffffffff 0x7f1bffdfe9c0 0x7f1c0c28c117
//
// is number, six arguments, stack pointer, program counter. The file of a
// running thread has no numbers.
func stackPointers(fs proc.FS, pid int) []uint64 {
	files, err := filepath.Glob(fs.Path(pid, "task", "[0-9]*", "syscall"))
	if err != nil {
		return nil
	}
	var out []uint64
	for _, name := range files {
		b, err := os.ReadFile(name)
		f := strings.Fields(string(b))
		if err != nil || len(f) < 3 {
			continue
		}
		if sp, err := strconv.ParseUint(strings.TrimPrefix(f[len(f)-2], "0x"), 16, 64); err == nil {
			out = append(out, sp)
		}
	}
	return out
}

// split sums the mappings up by kind.
func split(maps []proc.Mapping, total proc.Mapping, where []area) []Part {
	sums := map[string]*Part{}
	for _, name := range partNames {
		sums[name] = &Part{Name: name}
	}
	rest := sums[partOther]
	rest.Resident, rest.Swap = total.Rss, total.Swap
	take := func(part string, rss, swap uint64) {
		if part == partOther {
			return
		}
		p := sums[part]
		rss, swap = min(rss, rest.Resident), min(swap, rest.Swap)
		p.Resident += rss
		p.Swap += swap
		rest.Resident -= rss
		rest.Swap -= swap
	}
	for _, m := range maps {
		part, share := find(m, where)
		rss := min(m.Rss, share)
		take(part, rss, min(m.Swap, share))
		// The kernel merges neighbours that look alike: what does not fit into
		// the JVM's area is somebody else's.
		take(kind(m), m.Rss-rss, m.Swap-min(m.Swap, share))
	}
	out := make([]Part, 0, len(partNames))
	for _, name := range partNames {
		out = append(out, *sums[name])
	}
	return out
}

// find is the area that a mapping lies in, and how many of its bytes can.
func find(m proc.Mapping, where []area) (string, uint64) {
	for _, a := range where {
		lo, hi := max(m.Start, a.start), min(m.End, a.end)
		switch {
		case lo >= hi || strings.HasPrefix(m.Name, "/"):
		case a.whole:
			return a.part, m.End - m.Start
		case a.most > 0:
			return a.part, min(hi-lo, a.most)
		default:
			return a.part, hi - lo
		}
	}
	return partOther, 0
}

// kind judges a mapping, or what is left of it, by itself.
func kind(m proc.Mapping) string {
	const arena = 64 << 20 // HEAP_MAX_SIZE of glibc
	switch {
	case strings.HasPrefix(m.Name, "/"):
		return partFiles
	case m.Name == "[stack]":
		return partStacks
	case m.Name == "[heap]", m.Name == "" && m.Start%arena == 0 && m.Perms == "rw-p" && m.End-m.Start <= arena:
		return partMalloc
	case m.Name == "" && strings.HasPrefix(m.Perms, "rw"):
		return partDirect
	}
	return partOther
}

// Text is the report for people.
func (n Native) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%-34s %14s %14s\n", "memory by kind", "resident bytes", "swapped bytes")
	var all Part
	for _, p := range n.Parts {
		fmt.Fprintf(&b, "%-34s %14d %14d\n", p.Name, p.Resident, p.Swap)
		all.Resident += p.Resident
		all.Swap += p.Swap
	}
	fmt.Fprintf(&b, "%-34s %14d %14d\n", "total", all.Resident, all.Swap)
	if n.NMT == nil {
		b.WriteString("\nThe JVM keeps no account of its own: start it with -XX:NativeMemoryTracking=summary.\n")
		return b.Bytes()
	}
	b.WriteString("\nThe JVM's own account (VM.native_memory summary):\n")
	b.Write(n.NMT)
	return b.Bytes()
}
