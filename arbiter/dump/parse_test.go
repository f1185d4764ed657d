package dump

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smapsSample = `55e0c0a00000-55e0c0a02000 r--p 00000000 08:01 4711                       /usr/bin/a b (deleted)
Size:                  8 kB
Rss:                   8 kB
Anonymous:             4 kB
Swap:                  0 kB
VmFlags: rd mr mw me sd 
7f0000000000-7f0000100000 rw-s 00002000 00:01 9                          /memfd:x\012y (deleted)
Rss:                 132 kB
Anonymous:             0 kB
Swap:                 12 kB
NewKey:                1 apples
VmFlags: rd wr sh mr mw me ms dd pf ht
`

func TestParseSmaps(t *testing.T) {
	t.Parallel()
	got, err := parseSmaps(strings.NewReader(smapsSample))
	if err != nil {
		t.Fatal(err)
	}
	want := []vma{
		{Start: 0x55e0c0a00000, End: 0x55e0c0a02000, Read: true, Device: "08:01", Inode: 4711, Name: "/usr/bin/a b (deleted)", RSSKiB: 8, AnonKiB: 4},
		{Start: 0x7f0000000000, End: 0x7f0000100000, Read: true, Write: true, Shared: true, Offset: 0x2000, Device: "00:01", Inode: 9,
			Name: "/memfd:x\ny (deleted)", RSSKiB: 132, SwapKiB: 12, DontDump: true, IO: true, Huge: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseSmapsRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"Rss: 1 kB\n",
		"1000-1000 rw-p 0 0:0 0\n",
		"1001-2000 rw-p 0 0:0 0\n",
		"2000-3000 rw-p 0 0:0 0\n1000-2000 rw-p 0 0:0 0\n",
		"1000-2000 rw-p 0 0:0 0\nRss: 1 MB\n",
		"1000-2000 rw- 0 0:0 0\n",
		"1000-2000 rw-p x 0:0 0\n",
		"1000-2000 rw-p 0 0:0 -1\n",
	} {
		if got, err := parseSmaps(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	const line = "812 (a) b) S 1 812 800 0 -1 4194560 1 2 3 4 150 7 0 0 20 -5 3 0 98765 1 2\n"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	want := stat{Comm: "a) b", State: 'S', PPid: 1, Pgrp: 812, Session: 800, Flags: 4194560, UTime: 150, STime: 7, Nice: -5, Start: 98765}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseSyscall(t *testing.T) {
	t.Parallel()
	word := func(general []byte, reg int) uint64 { return binary.LittleEndian.Uint64(general[reg*8:]) }
	got, err := parseSyscall("232 0x4 0x7ffd0 0x80 0xffffffff 0x5 0x6 0x7ffe10 0x7f4567\n")
	if err != nil {
		t.Fatal(err)
	}
	for reg, want := range map[int]uint64{regOrigRAX: 232, regRDI: 4, regRSI: 0x7ffd0, regRDX: 0x80, regR10: 0xffffffff,
		regR8: 5, regR9: 6, regRSP: 0x7ffe10, regRIP: 0x7f4567} {
		if word(got, reg) != want {
			t.Errorf("register %d is %#x, want %#x", reg, word(got, reg), want)
		}
	}
	if got, err = parseSyscall("-1 0x7ffe10 0x7f4567"); err != nil || word(got, regRSP) != 0x7ffe10 || word(got, regOrigRAX) != 1<<64-1 {
		t.Errorf("outside a system call: %v %v", got, err)
	}
	for _, bad := range []string{"running\n", "", "1 2", "x 0x1 0x2", "-1 0x1 y"} {
		if _, err := parseSyscall(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestRemoteDevices(t *testing.T) {
	t.Parallel()
	const mountinfo = "36 25 0:32 / /a rw shared:1 - tmpfs tmpfs rw\n" +
		"37 25 0:171 / /b rw - fuse.sshfs x rw\n38 25 8:17 / /c rw - fuseblk /dev/sdb1 rw\nnonsense\n"
	if diff := cmp.Diff(map[string]bool{"00:ab": true, "08:11": true}, remoteDevices(mountinfo)); diff != "" {
		t.Error(diff)
	}
}

func TestOverlay(t *testing.T) {
	t.Parallel()
	data := []span{{Start: 0x1000, End: 0x5000, File: true}}
	mapped := []span{{Start: 0x1000, End: 0x2000, File: true}, {Start: 0x2000, End: 0x3000}, {Start: 0x4000, End: 0x6000}}
	want := []span{{Start: 0x1000, End: 0x2000, File: true}, {Start: 0x2000, End: 0x3000}, {Start: 0x3000, End: 0x4000, File: true}, {Start: 0x4000, End: 0x6000}}
	if diff := cmp.Diff(want, overlay(data, mapped)); diff != "" {
		t.Error(diff)
	}
}

func TestSplitLeavesLongHolesOut(t *testing.T) {
	t.Parallel()
	v := &vma{Start: 0x1000, End: 0x1000 + 4<<30}
	page := func(at uint64) span { return span{Start: v.Start + at, End: v.Start + at + pageSize} }
	type part struct{ Start, File, Mem uint64 }
	for _, c := range []struct {
		name  string
		spans []span
		want  []part
	}{
		{"never touched", nil, []part{{v.Start, 0, 4 << 30}}},
		{"begin", []span{page(0)}, []part{{v.Start, pageSize + maxHole, 4 << 30}}},
		{"both ends", []span{page(0), page(4<<30 - pageSize)}, []part{{v.Start, pageSize + maxHole, 4<<30 - pageSize}, {v.Start + 4<<30 - pageSize, pageSize, pageSize}}},
		{"short holes", []span{page(4<<30 - 2*maxHole), page(4<<30 - maxHole)}, []part{{v.Start, 0, 4<<30 - 2*maxHole}, {v.Start + 4<<30 - 2*maxHole, 2 * maxHole, 2 * maxHole}}},
	} {
		var got []part
		for _, s := range split(v, c.spans) {
			got = append(got, part{s.start, s.fileSize, s.memSize})
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// Beyond 65534 segments the count does not fit into the ELF header.
func TestHeadersCountManySegments(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, pnXnum - 2, pnXnum - 1, 70000} {
		segments := make([]segment, n)
		for i := range segments {
			segments[i] = segment{vma: &vma{}, start: uint64(i) * pageSize, memSize: pageSize}
		}
		b := headers(segments, 0)
		if uint64(len(b)) != headersSize(n+1) {
			t.Errorf("%d segments: %d bytes of headers, want %d", n, len(b), headersSize(n+1))
		}
		count := int(binary.LittleEndian.Uint16(b[56:]))
		if at := binary.LittleEndian.Uint64(b[40:]); at != 0 {
			if count != pnXnum {
				t.Errorf("%d segments: e_phnum is %d", n, count)
			}
			count = int(binary.LittleEndian.Uint32(b[at+44:]))
		}
		if count != n+1 {
			t.Errorf("%d segments are counted as %d program headers", n, count)
		}
	}
}

func TestMissingIsBounded(t *testing.T) {
	t.Parallel()
	var m missing
	for range 100 {
		m.add("%s\n\x1b", strings.Repeat("x", 1000))
	}
	all := m.all()
	if len(all) != 17 || all[16] != "and 84 more" || strings.ContainsAny(all[0], "\n\x1b") {
		t.Errorf("%d entries, the last %q", len(all), all[len(all)-1])
	}
	if note := m.note(); len(note) != noteMissingSize || note[len(note)-1] != 0 {
		t.Errorf("a note of %d bytes", len(note))
	}
}

func FuzzParseSmaps(f *testing.F) {
	f.Add([]byte(smapsSample))
	f.Fuzz(func(t *testing.T, b []byte) {
		vmas, err := parseSmaps(bytes.NewReader(b))
		if err != nil && vmas != nil {
			t.Error("both a value and an error")
		}
		for _, v := range vmas {
			if v.Start >= v.End || v.Start%pageSize != 0 {
				t.Errorf("mapping %+v", v)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("812 (a) b) S 1 812 800 0 -1 4194560 1 2 3 4 150 7 0 0 20 -5 3 0 98765 1 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err != nil && s != (stat{}) {
			t.Error("both a value and an error")
		}
	})
}

func FuzzParseSyscall(f *testing.F) {
	f.Add("232 0x4 0x7ffd0 0x80 0xffffffff 0x5 0x6 0x7ffe10 0x7f4567\n")
	f.Fuzz(func(t *testing.T, line string) {
		if general, err := parseSyscall(line); (err == nil) != (len(general) == generalSize) {
			t.Errorf("%d bytes of registers, error %v", len(general), err)
		}
	})
}
