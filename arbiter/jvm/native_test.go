package jvm

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/tests/jvmkit"
)

func TestBrackets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []area
	}{
		"g1":       {" garbage-first heap   total 653312K, used 110264K [0x00000000c0000000, 0x0000000100000000)", []area{{part: "x", start: 0xc0000000, end: 0x100000000}}},
		"parallel": {" PSYoungGen total 9216K, used 1K [0x00000000fab00000, 0x00000000fb500000, 0x0000000100000000)", []area{{part: "x", start: 0xfab00000, end: 0x100000000}}},
		"code":     {" bounds [0x00007fae58ec7000, 0x00007fae59137000, 0x00007fae60400000]", []area{{part: "x", start: 0x7fae58ec7000, end: 0x7fae60400000}}},
		"reversed": {"[0x20, 0x10)", nil},
		"none":     {"Metaspace used 80K", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, brackets("x", []byte(c.text)), cmp.AllowUnexported(area{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	where := []area{
		{part: partHeap, start: 1 << 32, end: 2 << 32},
		{part: partMetaspace, start: 0x7d0001000000, end: 0x7d0005000000, most: mb},
		{part: partStacks, start: 0x7f0000001000, end: 0x7f0000001001, whole: true},
	}
	maps := []proc.Mapping{
		{Start: 1 << 32, End: 1<<32 + 50*mb, Perms: "rw-p", Rss: 40 * mb, Swap: mb},
		{Start: 0x7f0000000000, End: 0x7f0000100000, Perms: "rw-p", Rss: 4096},
		{Start: 0x7e0000000000, End: 0x7e0000100000, Perms: "rw-p", Rss: 2 * mb}, // a multiple of 64 MiB
		{Start: 0x7d0001000000, End: 0x7d0003000000, Perms: "rw-p", Rss: 4 * mb}, // merged with a buffer
		{Start: 0x7e0004100000, End: 0x7e0008100000, Perms: "rw-p", Rss: 8 * mb},
		{Start: 0x555500000000, End: 0x555500100000, Perms: "r-xp", Name: "/usr/bin/java", Rss: mb},
	}
	got := split(maps, proc.Mapping{Rss: 60 * mb, Swap: 2 * mb}, where)
	want := []Part{
		{partHeap, 40 * mb, mb}, {partMetaspace, mb, 0}, {partCode, 0, 0}, {partStacks, 4096, 0},
		{partMalloc, 2 * mb, 0}, {partDirect, 11 * mb, 0}, {partFiles, mb, 0}, {partOther, 5*mb - 4096, mb},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestKernelNativeMemory(t *testing.T) {
	for name, home := range jvmkit.JDKs(t) {
		t.Run(name, func(t *testing.T) {
			classes := jvmkit.Compile(t, home, "Direct.java")
			c := jvmkit.Start(t, jvmkit.Options{}, filepath.Join(home, "bin/java"), "-Xms64m", "-Xmx64m", "-XX:+AlwaysPreTouch",
				"-XX:NativeMemoryTracking=summary", "-cp", classes, "Direct", "48", "50")
			c.Await(t, "ready")
			j := open(t, c.Pid)
			n, err := NativeMemory(t.Context(), "/proc", j)
			if err != nil {
				t.Fatal(err)
			}
			// The bounds are wide: what counts is that each kind is found.
			for part, bounds := range map[string][2]uint64{
				partHeap:   {60 << 20, 72 << 20},
				partDirect: {44 << 20, 80 << 20},
				partCode:   {1 << 20, 64 << 20},
				partStacks: {256 << 10, 32 << 20},
				partFiles:  {4 << 20, 64 << 20},
			} {
				for _, p := range n.Parts {
					if p.Name == part && (p.Resident < bounds[0] || p.Resident > bounds[1]) {
						t.Errorf("%s: %d bytes, want %d to %d", part, p.Resident, bounds[0], bounds[1])
					}
				}
			}
			if !bytes.Contains(n.NMT, []byte("Java Heap")) || !bytes.Contains(n.Text(), []byte("Java Heap")) {
				t.Errorf("no account of the jvm's own: %.100s", n.NMT)
			}
			t.Logf("%s", n.Text()[:400])
		})
	}
}
