package jvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/tests/jvmkit"
)

// oldJDK answers as one that cannot write to a FIFO.
type oldJDK struct{ *JVM }

func (o oldJDK) Command(ctx context.Context, command string) ([]byte, error) {
	if command == "VM.version" {
		return []byte("JDK 11.0.20\n"), nil
	}
	return o.JVM.Command(ctx, command)
}

// The way of JDK 8 and 11: a file, which is read and removed.
func TestKernelHeapDumpByFile(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{UserNS: true}, []string{"-Xmx256m"}, "40", "0")
	j := open(t, c.Pid)
	f, err := os.Create(filepath.Join(t.TempDir(), "heap.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := HeapDump(t.Context(), j, oldJDK{j}, DumpOptions{MaxBytes: 1 << 30}, f)
	if err != nil || d.Via != "file" || d.JDK != 11 || !leaks(d.Heap) {
		t.Errorf("got %s of %d: %v", d.Via, d.JDK, err)
	}
	if left := c.Leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// In a /tmp that is memory a file would be charged and cut off.
func TestKernelHeapDumpByFileInMemory(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{MemoryTmp: true}, []string{"-Xmx256m"}, "10", "0")
	j := open(t, c.Pid)
	if _, err := HeapDump(t.Context(), j, oldJDK{j}, DumpOptions{MaxBytes: 1 << 20}, discard{}); !errors.Is(err, ErrTakeCore) {
		t.Errorf("got %v", err)
	}
	if _, err := dumpFile(t, j, DumpOptions{}); err != nil { // a FIFO holds nothing
		t.Errorf("by fifo: %v", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error)            { return len(p), nil }
func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (discard) Seek(int64, int) (int64, error)         { return 0, nil }

// slow is a disk that is slower than the JVM. begun is closed at the first
// byte.
type slow struct {
	discard
	begun chan struct{}
	once  bool
}

func (s *slow) Write(p []byte) (int, error) {
	if !s.once {
		s.once = true
		close(s.begun)
	}
	time.Sleep(20 * time.Millisecond)
	return len(p), nil
}

// A JVM killed in the middle of its dump ends the dump at once.
func TestKernelExitWhileDumping(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-Xmx512m"}, "200", "0")
	j := open(t, c.Pid)
	out := &slow{begun: make(chan struct{})}
	go func() { <-out.begun; _ = c.Cmd.Process.Kill() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := HeapDump(ctx, j, j, DumpOptions{MaxBytes: 1 << 30}, out)
	if !errors.Is(err, proc.ErrGone) && !errors.Is(err, ErrBadDump) {
		t.Errorf("got %v", err)
	}
	if ctx.Err() != nil {
		t.Error("it waited for the deadline")
	}
}

// A dump that is given up in the middle leaves the JVM alive and its /tmp
// clean, and the next one works.
func TestKernelGiveUpWhileDumping(t *testing.T) {
	for name, home := range jvmkit.JDKs(t) {
		t.Run(name, func(t *testing.T) {
			c := jvmkit.Leaker(t, home, jvmkit.Options{UserNS: true}, []string{"-Xmx512m"}, "200", "0")
			j := open(t, c.Pid)
			ctx, cancel := context.WithCancel(t.Context())
			out := &slow{begun: make(chan struct{})}
			go func() { <-out.begun; cancel() }()
			if _, err := HeapDump(ctx, j, j, DumpOptions{MaxBytes: 1 << 30}, out); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			mustLive(t, c)
			if left := c.Leftovers(t); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if d, err := dumpFile(t, j, DumpOptions{}); err != nil || !leaks(d.Heap) {
				t.Errorf("the next one: %v", err)
			}
		})
	}
}

// A JVM in the middle of full collections, one after the other, answers late
// and all the same.
func TestKernelDumpDuringFullGC(t *testing.T) {
	home := jvmkit.JDK(t)
	classes := jvmkit.Compile(t, home, "Collect.java")
	c := jvmkit.Start(t, jvmkit.Options{}, filepath.Join(home, "bin/java"), "-Xmx256m", "-XX:+UseSerialGC", "-cp", classes, "Collect", "100")
	c.Await(t, "ready")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	j, err := Open(ctx, "/proc", c.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if d, err := HeapDump(ctx, j, j, DumpOptions{MaxBytes: 1 << 30}, discard{}); err != nil || d.Objects == 0 {
		t.Errorf("got %d objects, %v", d.Objects, err)
	}
}

// What the container puts in our directory or in place of our FIFO is not
// read, and not followed.
func TestKernelSpoolReplaced(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-Xmx64m"}, "1", "0")
	s, err := newSpool(t.Context(), open(t, c.Pid))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.Tmp, s.name)
	for name, make := range map[string]func(string) error{
		"a symlink":   func(p string) error { return os.Symlink("/etc/passwd", p) },
		"a directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"a fifo":      func(p string) error { return unix.Mkfifo(p, 0o644) },
	} {
		file := filepath.Join(dir, dumpName)
		if err := make(file); err != nil {
			t.Fatal(err)
		}
		if f, err := s.regular(t.Context(), dumpName); err == nil {
			t.Errorf("%s was opened as %s", name, f.Name())
		}
		if _, err := s.fifo(t.Context(), dumpName); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s in place of the fifo: %v", name, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	s.remove()
	if left := c.Leftovers(t); strings.Join(left, "") != "" {
		t.Errorf("left behind: %q", left)
	}
}
