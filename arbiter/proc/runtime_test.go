package proc

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHintedMappings(t *testing.T) {
	t.Parallel()
	const maps = `00400000-00401000 r-xp 00000000 fe:00 12 /opt/a b/java
7f0000000000-7f0000010000 r--p 00000000 fe:00 77 /jdk/lib/server/libjvm.so
7f0000010000-7f0000020000 r-xp 00010000 fe:00 77 /jdk/lib/server/libjvm.so
7f0000020000-7f0000030000 r-xp 00020000 fe:00 77 /jdk/lib/server/libjvm.so
7f0000030000-7f0000040000 r-xp 00000000 fe:00 78 /usr/lib/libpython3.11.so.1.0 (deleted)
7f0000040000-7f0000050000 r-xp 00000000 00:00 0
not a mapping
7f0000050000-7f0000060000 rw-p 00000000 00:00 0    [heap]
zz-7f0000060000 r-xp 00000000 fe:00 79 /libnode.so.108`
	got, err := hintedMappings(strings.NewReader(maps))
	if err != nil {
		t.Fatal(err)
	}
	want := []hintedMapping{
		{JVM, 0x7f0000010000, 0x7f0000020000},
		{Python, 0x7f0000030000, 0x7f0000040000},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(hintedMapping{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzHintedMappings(f *testing.F) {
	f.Add([]byte("7f0000010000-7f0000020000 r-xp 00010000 fe:00 77 /jdk/libjvm.so\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := hintedMappings(bytes.NewReader(b))
		if err != nil && got != nil {
			t.Errorf("both %v and %v", got, err)
		}
		if len(got) > maxLibraries {
			t.Errorf("%d libraries", len(got))
		}
	})
}

func FuzzELF(f *testing.F) {
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(exe[:4096])
	if sh, err := os.ReadFile("/bin/sh"); err == nil {
		f.Add(sh)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseELF(bytes.NewReader(b))
		if err != nil {
			if e != nil {
				t.Error("both value and error")
			}
			return
		}
		classify(e, nil)
		e.importsAny("Py_BytesMain")
	})
}

func TestELFBudget(t *testing.T) {
	t.Parallel()
	r := &boundedReader{r: bytes.NewReader(make([]byte, 64)), left: 40}
	if _, err := r.ReadAt(make([]byte, 32), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 32), 0); err == nil {
		t.Error("read past the budget")
	}
}

// start runs a program until the test ends. It must be one that waits.
func start(t *testing.T, env []string, argv ...string) int {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	// A pipe that nobody writes to: interpreters wait on it.
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// eventually waits until the program has loaded its runtime: exec and dlopen
// take a moment.
func eventually(t *testing.T, pid int, want Runtime) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got, err := DetectRuntime(t.Context(), "/proc", pid)
		if got == want && err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestKernelDetectSelf(t *testing.T) {
	if got, err := DetectRuntime(t.Context(), "/proc", os.Getpid()); got != Go || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestDetectRealPrograms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	java := write(t, filepath.Join(dir, "Wait.java"),
		`public class Wait { public static void main(String[] a) throws Exception { System.in.read(); } }`)
	script := write(t, filepath.Join(dir, "java.py"), "import sys; sys.stdin.read()")
	programs := []struct {
		want Runtime
		argv []string
	}{
		{Native, []string{"/bin/sh", "-c", "read x; :"}},
		{Native, []string{"/bin/bash", "-c", "read x; :"}},
		{Native, []string{"/bin/sleep", "600"}},
		{Native, []string{"/usr/bin/perl", "-e", "<STDIN>"}},
		{Native, []string{"/usr/bin/tclsh"}},
		{Native, []string{"/usr/bin/gdb", "-q"}}, // embeds Python
		{Native, []string{"/usr/bin/busybox", "cat"}},
		{Python, []string{"/usr/bin/python3", script}},
		{Node, []string{"/usr/bin/node", "-e", "process.stdin.resume()"}},
		{JVM, []string{"/usr/lib/jvm/java-17-openjdk-amd64/bin/java", java}},
		{JVM, []string{"/usr/lib/jvm/temurin-25-jdk-amd64/bin/java", java}},
		{JVM, []string{"/usr/bin/jshell"}},
		{Go, []string{"/usr/local/go/bin/gofmt"}},
	}
	more, err := filepath.Glob("/root/.pyenv/versions/3.*/bin/python3")
	if err != nil {
		t.Fatal(err)
	}
	for _, py := range more {
		programs = append(programs, struct {
			want Runtime
			argv []string
		}{Python, []string{py, script}})
	}
	for _, p := range programs {
		t.Run(strings.TrimPrefix(p.argv[0], "/"), func(t *testing.T) {
			if _, err := os.Stat(p.argv[0]); err != nil {
				t.Skipf("not installed: %s", p.argv[0])
			}
			eventually(t, start(t, nil, p.argv...), p.want)
		})
	}
}

func TestDetectGoBuilds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := write(t, filepath.Join(dir, "main.go"), "package main\nimport \"os\"\nfunc main() { os.Stdin.Read(make([]byte, 1)) }\n")
	for name, flags := range map[string][]string{
		"plain":    nil,
		"stripped": {"-ldflags=-s -w"},
		"no id":    {"-ldflags=-s -w -buildid="},
		"pie":      {"-buildmode=pie", "-ldflags=-buildid="},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "python3")
			argv := append(append([]string{"build"}, flags...), "-o", out, src)
			if b, err := exec.Command("go", argv...).CombinedOutput(); err != nil {
				t.Fatalf("go build: %v: %s", err, b)
			}
			eventually(t, start(t, nil, out), Go)
		})
	}
}

// A native program may call itself java and map files with telling names.
func TestDetectImpostors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fake := filepath.Join(dir, "java")
	copyFile(t, "/bin/sleep", fake)
	for _, name := range []string{"libjvm.so", "libcoreclr.so", "libnode.so.108", "libpython3.11.so"} {
		t.Run(name, func(t *testing.T) {
			lib := filepath.Join(t.TempDir(), name)
			copyFile(t, "/lib/x86_64-linux-gnu/libm.so.6", lib)
			pid := start(t, []string{"LD_PRELOAD=" + lib}, fake, "600")
			waitMapped(t, pid, name)
			eventually(t, pid, Native)
		})
	}
}

// The same names with the real exports: a library that was deleted after it
// was mapped is still found by its inode.
func TestDetectExports(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("not installed: gcc")
	}
	for _, c := range []struct {
		lib, symbol string
		want        Runtime
	}{
		{"libcoreclr.so", "coreclr_initialize", DotNet},
		{"libjvm.so", "JNI_CreateJavaVM", JVM},
		{"libpython3.so", "Py_Main", Native}, // sleep does not call it
	} {
		t.Run(c.lib, func(t *testing.T) {
			dir := t.TempDir()
			src := write(t, filepath.Join(dir, "x.c"), "void "+c.symbol+"(void) {}")
			lib := filepath.Join(dir, c.lib)
			if b, err := exec.Command("gcc", "-shared", "-Wl,--hash-style=gnu", "-o", lib, src).CombinedOutput(); err != nil {
				t.Fatalf("gcc: %v: %s", err, b)
			}
			pid := start(t, []string{"LD_PRELOAD=" + lib}, "/bin/sleep", "600")
			waitMapped(t, pid, c.lib)
			if err := os.Remove(lib); err != nil {
				t.Fatal(err)
			}
			eventually(t, pid, c.want)
			if ok, err := HotSpot(t.Context(), "/proc", pid); ok || err != nil {
				t.Errorf("HotSpot: %v, %v", ok, err)
			}
		})
	}
}

func waitMapped(t *testing.T, pid int, name string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(FS("/proc").Path(pid, "maps")); err == nil && bytes.Contains(b, []byte("/"+name)) {
			return
		}
	}
	t.Fatalf("%s was never mapped", name)
}

func TestDetectGone(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := DetectRuntime(t.Context(), "/proc", pid); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
	if _, _, err := DetectContainer(t.Context(), "/proc", []int{pid}); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}

func TestDetectContainerPicksLargest(t *testing.T) {
	t.Parallel()
	small := start(t, nil, "/bin/sleep", "600")
	rt, pid, err := DetectContainer(t.Context(), "/proc", []int{small, os.Getpid()})
	if rt != Go || pid != os.Getpid() || err != nil {
		t.Errorf("got %q of %d, %v", rt, pid, err)
	}
}

func TestAbandon(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan struct{})
	t.Cleanup(func() { close(stuck) })
	cancel()
	if _, err := Abandon(ctx, func() (int, error) { <-stuck; return 1, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}
