package dump

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// openCore reads a core's program headers with the standard library.
func openCore(t testing.TB, name string) *elf.File {
	t.Helper()
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if f.Type != elf.ET_CORE || f.Machine != elf.EM_X86_64 {
		t.Fatalf("%s: %v for %v", name, f.Type, f.Machine)
	}
	return f
}

// compare holds every page of a core against the stopped process: what is in
// the file must be the same; what is not must be zero in the process, or lie
// in a file that still exists, or was not to be dumped. It returns how many
// pages were compared.
func compare(t testing.TB, core *elf.File, tg *target) (pages int) {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", tg.pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	smaps, err := os.Open(fmt.Sprintf("/proc/%d/smaps", tg.pid))
	if err != nil {
		t.Fatal(err)
	}
	defer smaps.Close()
	vmas, err := parseSmaps(smaps)
	if err != nil {
		t.Fatal(err)
	}
	byStart := map[uint64]vma{}
	for _, v := range vmas {
		byStart[v.Start] = v
	}
	zero := make([]byte, pageSize)
	wrong := 0
	for _, p := range core.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Filesz > 0 {
			n, bad := compareSegment(t, p, mem)
			pages, wrong = pages+n, wrong+bad
		}
		v, ok := byStart[p.Vaddr]
		if !ok || v.file() || v.IO || v.DontDump || p.Memsz > 1<<31 {
			continue
		}
		there := make([]byte, pageSize)
		for at := p.Filesz; at < p.Memsz; at += pageSize {
			if n, _ := mem.ReadAt(there, int64(p.Vaddr+at)); n == pageSize && !bytes.Equal(there, zero) {
				if wrong++; wrong < 5 {
					t.Errorf("page %#x of %s is not in the core", p.Vaddr+at, v.Name)
				}
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d pages differ", wrong)
	}
	return pages
}

func compareSegment(t testing.TB, p *elf.Prog, mem io.ReaderAt) (pages, wrong int) {
	t.Helper()
	const step = 1 << 20
	here, there := make([]byte, step), make([]byte, step)
	for at := uint64(0); at < p.Filesz; at += step {
		n := min(step, p.Filesz-at)
		if _, err := p.ReadAt(here[:n], int64(at)); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("read core at %#x: %v", p.Vaddr+at, err)
		}
		readPages(there[:n], mem, p.Vaddr+at)
		for i := uint64(0); i < n; i += pageSize {
			pages++
			if !bytes.Equal(here[i:i+pageSize], there[i:i+pageSize]) {
				if wrong++; wrong < 5 {
					t.Errorf("page %#x differs: zero in the core %t, in the process %t", p.Vaddr+at+i,
						isZero(here[i:i+pageSize]), isZero(there[i:i+pageSize]))
				}
			}
		}
	}
	return pages, wrong
}

func isZero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }

// readPages reads memory page by page. A page that cannot be read is taken for
// zero: it is one of shared memory that was never touched, which the kernel
// does not make at a limit.
func readPages(b []byte, mem io.ReaderAt, addr uint64) {
	if n, _ := mem.ReadAt(b, int64(addr)); n == len(b) {
		return
	}
	for i := 0; i < len(b); i += pageSize {
		if n, _ := mem.ReadAt(b[i:i+pageSize], int64(addr)+int64(i)); n < pageSize {
			clear(b[i : i+pageSize])
		}
	}
}

// has reports whether the core's file holds the byte at addr.
func has(core *elf.File, addr uint64) bool {
	for _, p := range core.Progs {
		if p.Type == elf.PT_LOAD && p.Vaddr <= addr && addr < p.Vaddr+p.Filesz {
			return true
		}
	}
	return false
}

// notes counts the notes of a core by type, and finds ARBITER's text.
func notes(t testing.TB, core *elf.File) (count map[uint32]int, missing string) {
	t.Helper()
	b, err := io.ReadAll(core.Progs[0].Open())
	if err != nil {
		t.Fatal(err)
	}
	count = map[uint32]int{}
	for len(b) >= 12 {
		nameLen, descLen, kind := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		name := b[12 : 12+nameLen-1]
		b = b[12+(nameLen+3)&^3:]
		if string(name) == "ARBITER" {
			missing = string(bytes.TrimRight(b[:descLen], "\x00"))
		} else {
			count[kind]++
		}
		b = b[(descLen+3)&^3:]
	}
	return count, missing
}

func memOf(t testing.TB, pid int) *os.File {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
