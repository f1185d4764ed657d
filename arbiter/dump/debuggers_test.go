package dump

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The proof of a core is the debugger: each opens the core of a program that
// was held at its limit, in a function and with a variable that it must find.
func TestKernelDebuggersOpenHeldCores(t *testing.T) {
	for _, c := range []struct {
		name  string
		needs []string
		limit uint64
		build func(t *testing.T) (argv []string)
		open  func(t *testing.T, argv []string, core string) *exec.Cmd
		want  []string
		never []string
	}{
		{"gdb opens C", []string{"gdb"}, 64 << 20, buildC, openGDB,
			[]string{"innermost (depth=0", "innermost (depth=5", "in main ()", "$1 = 4243", "Thread 0x", "  4  "},
			[]string{"too small", "Couldn't", "corrupt", "is truncated"}},
		{"delve opens Go", nil, 64 << 20, buildGo, openDelve,
			[]string{"main.innermost", "main.main", "4243", "Goroutine 1 "}, nil},
		{"gdb opens Go", []string{"gdb"}, 64 << 20, buildGo, openGDBGo,
			[]string{"main.innermost", "main.main"}, nil},
		{"jhsdb opens Java", []string{"jhsdb", "javac"}, 192 << 20, buildJava, openJHSDB,
			[]string{"Held.innermost()", "Held.main(java.lang.String[])", `"known-thread"`, "Held.sleep()"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			needs(t, c.needs...)
			argv := c.build(t)
			h := holdAtLimit(t, c.limit, argv...)
			report, core, err := h.dump(t, h.hold())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", report.Cores[0])
			out, err := c.open(t, argv, core).CombinedOutput()
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("the debugger does not show %q", want)
				}
			}
			for _, never := range c.never {
				if strings.Contains(string(out), never) {
					t.Errorf("the debugger complains: %q", never)
				}
			}
			if t.Failed() || testing.Verbose() {
				t.Logf("%v\n%s", err, out)
			}
			if !h.frozen(t) {
				t.Error("the container did not stay frozen")
			}
		})
	}
}

// needs skips a test whose programs are not installed.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs program: " + program)
		}
	}
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// built is a program in the repository's .cache/debug. Where its compiler is
// missing, as in a guest, one that was brought along will do.
func built(t *testing.T, name, compiler string, args ...string) string {
	t.Helper()
	exe, err := filepath.Abs(filepath.Join("../../.cache/debug", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(compiler); err != nil {
		if _, err := os.Stat(exe); err == nil {
			return exe
		}
	}
	needs(t, compiler)
	t.Setenv("CGO_ENABLED", "0") // a guest has no loader
	if err := os.MkdirAll(filepath.Dir(exe), 0o755); err != nil {
		t.Fatal(err)
	}
	at := slices.Index(args, "-o") + 1
	tool(t, compiler, slices.Insert(args, at, exe)...)
	return exe
}

// TestBuildDebuggees builds what a guest cannot build for itself.
func TestBuildDebuggees(t *testing.T) {
	buildC(t)
	buildGo(t)
	delve(t)
}

func buildC(t *testing.T) []string {
	return []string{built(t, "held-c", "gcc", "-g", "-O0", "-o", "testdata/held.c", "-lpthread")}
}

func buildGo(t *testing.T) []string {
	return []string{built(t, "held-go", "go", "build", "-gcflags=all=-N -l", "-o", "./testdata/held")}
}

func delve(t *testing.T) string {
	return built(t, "dlv", "go", "build", "-C", "../../tests/tools", "-o", "github.com/go-delve/delve/cmd/dlv")
}

func buildJava(t *testing.T) []string {
	dir := t.TempDir()
	tool(t, "javac", "-d", dir, "testdata/Held.java")
	java, err := exec.LookPath("java")
	if err != nil {
		t.Fatal(err)
	}
	if java, err = filepath.EvalSymlinks(java); err != nil {
		t.Fatal(err)
	}
	return []string{java, "-XX:+UseSerialGC", "-Xmx1g", "-cp", dir, "Held"}
}

func debugger(args ...string) *exec.Cmd {
	// The test's own context ends with the test: a debugger that hangs is ended
	// by its timeout.
	return exec.Command("timeout", append([]string{"120"}, args...)...)
}

func openGDB(_ *testing.T, argv []string, core string) *exec.Cmd {
	return debugger("gdb", "-nx", "-batch", "-ex", "bt", "-ex", "info threads", "-ex", "print known_variable", argv[0], core)
}

func openGDBGo(_ *testing.T, argv []string, core string) *exec.Cmd {
	return debugger("gdb", "-nx", "-batch", "-ex", "thread apply all bt", argv[0], core)
}

func openDelve(t *testing.T, argv []string, core string) *exec.Cmd {
	cmd := debugger(delve(t), "core", argv[0], core, "--allow-non-terminal-interactive=true")
	cmd.Stdin = strings.NewReader("goroutines\ngoroutine 1 bt\nprint main.knownVariable\nexit\n")
	return cmd
}

func openJHSDB(_ *testing.T, argv []string, core string) *exec.Cmd {
	return debugger("jhsdb", "jstack", "--exe", argv[0], "--core", core)
}
