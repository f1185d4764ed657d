package jvm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/arbiterd/arbiter/tests/jvmkit"
)

func open(t *testing.T, pid int) *JVM {
	t.Helper()
	j, err := Open(t.Context(), "/proc", pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// dumpFile dumps to a file and checks that it opens: the file is decompressed
// and walked again from its beginning.
func dumpFile(t *testing.T, j *JVM, o DumpOptions) (Dump, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "heap.hprof.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if o.MaxBytes == 0 {
		o.MaxBytes = 4 << 30
	}
	d, err := HeapDump(t.Context(), j, j, o, f)
	if err != nil {
		return d, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	again, err := WalkHeap(z)
	if err != nil {
		t.Fatalf("walk the file: %v", err)
	}
	if again.Objects != d.Objects || again.Bytes != d.Bytes {
		t.Errorf("the file has %d objects in %d bytes, the stream had %d in %d", again.Objects, again.Bytes, d.Objects, d.Bytes)
	}
	return d, nil
}

// leaks tells whether the leaking classes are where they must be.
func leaks(h Heap) bool {
	if len(h.Classes) == 0 || h.Classes[0].Name != "byte[]" {
		return false
	}
	for _, c := range h.Classes[:min(5, len(h.Classes))] {
		if c.Name == "Leak$Node" && c.Instances >= 40*64 {
			return true
		}
	}
	return false
}

func TestKernelHeapDump(t *testing.T) {
	for name, home := range jvmkit.JDKs(t) {
		for _, gc := range []string{"Serial", "Parallel", "G1"} {
			for _, userNS := range []bool{false, true} {
				run := name + "/" + gc
				if userNS {
					run += "/userns"
				}
				t.Run(run, func(t *testing.T) {
					c := jvmkit.Leaker(t, home, jvmkit.Options{UserNS: userNS}, []string{"-Xmx256m", "-XX:+Use" + gc + "GC"}, "40", "0")
					d, err := dumpFile(t, open(t, c.Pid), DumpOptions{})
					if err != nil {
						t.Fatal(err)
					}
					if !leaks(d.Heap) {
						t.Errorf("top classes: %v", d.Classes[:min(5, len(d.Classes))])
					}
					if d.Via != "fifo" {
						t.Errorf("via %s", d.Via)
					}
					if left := c.Leftovers(t); len(left) > 0 {
						t.Errorf("left behind: %q", left)
					}
				})
			}
		}
	}
}

func TestKernelCommands(t *testing.T) {
	for name, home := range jvmkit.JDKs(t) {
		t.Run(name, func(t *testing.T) {
			c := jvmkit.Leaker(t, home, jvmkit.Options{UserNS: true}, []string{"-Xmx256m"}, "40", "0")
			j := open(t, c.Pid)
			threads, err := ThreadDump(t.Context(), j, true)
			if err != nil || !bytes.Contains(threads, []byte("Leak.main")) {
				t.Errorf("thread dump: %v, %.200s", err, threads)
			}
			classes, err := ClassHistogram(t.Context(), j, false)
			if err != nil || !bytes.Contains(classes, []byte("Leak$Node")) {
				t.Errorf("histogram: %v, %.200s", err, classes)
			}
			if info, err := HeapInfo(t.Context(), j); err != nil || !bytes.Contains(info, []byte("heap")) {
				t.Errorf("heap info: %v, %.200s", err, info)
			}
			if v, err := Version(t.Context(), j); err != nil || !strings.HasSuffix(name, map[int]string{17: "17", 25: "25"}[v]) {
				t.Errorf("version: %d, %v", v, err)
			}
			if _, err := j.Command(t.Context(), "No.such_command"); err == nil {
				t.Error("an unknown command succeeded")
			}
			if left := c.Leftovers(t); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}
