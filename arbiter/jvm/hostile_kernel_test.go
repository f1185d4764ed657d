package jvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/tests/jvmkit"
)

// occupy listens on the JVM's socket name before the JVM does. serve gets
// every connection.
func occupy(t *testing.T, c *jvmkit.Container, serve func(net.Conn)) {
	t.Helper()
	name := filepath.Join(c.Tmp, ".java_pid1")
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(name, 0o777); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
}

// command runs one command with a bound of its own and expects it to fail.
func command(t *testing.T, c *jvmkit.Container, bound time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	j, err := Open(ctx, "/proc", c.Pid)
	if err == nil {
		t.Cleanup(j.Close)
		_, err = ThreadDump(ctx, j, false)
	}
	if err == nil {
		t.Fatal("it worked")
	}
	return err
}

func TestKernelForeignSocket(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, nil, "1", "0")
	occupy(t, c, func(conn net.Conn) { _, _ = io.WriteString(conn, "0\nlies"); _ = conn.Close() })
	if err := command(t, c, 10*time.Second); !errors.Is(err, ErrWrongPeer) || !errors.Is(err, ErrTakeCore) {
		t.Errorf("got %v", err)
	}
	mustLive(t, c)
}

func TestKernelSocketIsSymlink(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, nil, "1", "0")
	trap := filepath.Join(t.TempDir(), "host.sock")
	l, err := net.Listen("unix", trap)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink(trap, filepath.Join(c.Tmp, ".java_pid1")); err != nil {
		t.Fatal(err)
	}
	if err := command(t, c, 10*time.Second); !errors.Is(err, ErrTakeCore) {
		t.Errorf("got %v", err)
	}
	if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if conn, err := l.Accept(); err == nil {
		t.Errorf("the symlink was followed to %v", conn)
	}
}

func TestKernelSocketIsFile(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, nil, "1", "0")
	if err := os.WriteFile(filepath.Join(c.Tmp, ".java_pid1"), nil, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := command(t, c, 10*time.Second); !errors.Is(err, ErrTakeCore) {
		t.Errorf("got %v", err)
	}
}

// A /tmp that is a symlink leads to the container's own root, not to ours.
func TestKernelTmpStaysInside(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "proc/7/root/inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, ok := range map[string]bool{"/inside": true, "../../../../inside": true, "/proc/self/root/tmp": false} {
		tmp := filepath.Join(dir, "proc/7/root/tmp")
		if err := os.Symlink(link, tmp); err != nil {
			t.Fatal(err)
		}
		fd, err := openTmp(proc.FS(filepath.Join(dir, "proc")), 7)
		if ok != (err == nil) {
			t.Errorf("%s: %v", link, err)
		}
		if err == nil {
			at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err != nil || at != filepath.Join(dir, "proc/7/root/inside") {
				t.Errorf("%s: leads to %s, %v", link, at, err)
			}
			_ = unix.Close(fd)
		}
		if err := os.Remove(tmp); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKernelReadOnlyTmp(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{ReadOnlyTmp: true}, nil, "1", "0")
	if err := command(t, c, 10*time.Second); !errors.Is(err, unix.EROFS) || !errors.Is(err, ErrTakeCore) {
		t.Errorf("got %v", err)
	}
	mustLive(t, c)
}

func TestKernelMissingTmp(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "7/root"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openTmp(proc.FS(dir), 7); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
}

func TestKernelDisableAttach(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-XX:+DisableAttachMechanism"}, "1", "0")
	if err := command(t, c, 20*time.Second); !errors.Is(err, ErrTakeCore) {
		t.Errorf("got %v", err)
	}
	mustLive(t, c)
	if left := c.Leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// -Xrs leaves SIGQUIT at its default, which ends the process. The JVM listens
// from its start instead, unless that is forbidden too.
func TestKernelReducedSignals(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-Xrs"}, "1", "0")
	if b, err := ThreadDump(t.Context(), open(t, c.Pid), false); err != nil || len(b) == 0 {
		t.Errorf("with -Xrs: %v", err)
	}
	c = jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-Xrs", "-XX:+DisableAttachMechanism"}, "1", "0")
	err := command(t, c, 10*time.Second)
	if !errors.Is(err, ErrTakeCore) || !strings.Contains(err.Error(), "SIGQUIT") {
		t.Errorf("got %v", err)
	}
	mustLive(t, c)
}

func TestKernelExitWhileAttaching(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-XX:+DisableAttachMechanism"}, "1", "0")
	time.AfterFunc(500*time.Millisecond, func() { _ = c.Cmd.Process.Kill() })
	begun := time.Now()
	if err := command(t, c, 30*time.Second); !errors.Is(err, proc.ErrGone) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(begun); d > 6*time.Second {
		t.Errorf("it took %s to notice", d)
	}
}

// What is no JVM is never sent SIGQUIT, and lives.
func TestKernelNotJVM(t *testing.T) {
	for _, argv := range [][]string{
		{"/bin/sleep", "600"},
		{"/usr/bin/python3", "-c", "import time; time.sleep(600)"},
		{"/usr/bin/node", "-e", "setTimeout(() => {}, 600000)"},
		{"/bin/sh", "-c", "read x; :"},
	} {
		t.Run(filepath.Base(argv[0]), func(t *testing.T) {
			if _, err := os.Stat(argv[0]); err != nil {
				t.Skipf("not installed: %s", argv[0])
			}
			cmd := exec.Command(argv[0], argv[1:]...)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			c := &jvmkit.Container{Cmd: cmd, Pid: cmd.Process.Pid}
			if err := command(t, c, 5*time.Second); !errors.Is(err, ErrTakeCore) {
				t.Errorf("got %v", err)
			}
			mustLive(t, c)
		})
	}
}

// mustLive fails if the process died, as it does some time after a signal.
func mustLive(t *testing.T, c *jvmkit.Container) {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
	p, err := proc.FS("/proc").OpenProcess(c.Pid)
	if err != nil {
		t.Fatalf("it died: %v", err)
	}
	defer p.Close()
	if !p.Alive() {
		t.Fatal("it died")
	}
}

// An impostor that is the right process but no honest JVM: it may answer
// anything, or nothing.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	endless := func(c net.Conn) {
		_, _ = io.WriteString(c, "0\n")
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  func(error) bool
	}{
		"endless":  {endless, func(err error) bool { return errors.Is(err, ErrTooLong) }},
		"no code":  {func(c net.Conn) { _, _ = io.WriteString(c, "yes\n"); _ = c.Close() }, func(err error) bool { return strings.Contains(err.Error(), "result line") }},
		"empty":    {func(c net.Conn) { _ = c.Close() }, func(err error) bool { return strings.Contains(err.Error(), "result line") }},
		"refusal":  {func(c net.Conn) { _, _ = io.WriteString(c, "100\nOperation denied\nmore"); _ = c.Close() }, func(err error) bool { return strings.Contains(err.Error(), `result 100: "Operation denied"`) }},
		"negative": {func(c net.Conn) { _, _ = io.WriteString(c, "-1\n"); _ = c.Close() }, func(err error) bool { return strings.Contains(err.Error(), "result -1") }},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			go func() { _, _ = theirs.Read(make([]byte, 64)); c.serve(theirs) }()
			if _, err := exchange(ours, "jcmd", "x"); err == nil || !c.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A JVM that is stopped accepts the connection (its queue does) and never
// answers.
func TestKernelNeverAnswers(t *testing.T) {
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, nil, "1", "0")
	j := open(t, c.Pid)
	if _, err := ThreadDump(t.Context(), j, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := ThreadDump(ctx, j, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
}
