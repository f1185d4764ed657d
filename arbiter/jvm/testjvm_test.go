package jvm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain doubles as the init of a container: see container.
func TestMain(m *testing.M) {
	if tmp := os.Getenv("JVM_TEST_TMP"); tmp != "" {
		fmt.Fprintln(os.Stderr, containerInit(tmp, os.Args[1:]))
		os.Exit(125)
	}
	os.Exit(m.Run())
}

// containerInit runs as pid 1 of new namespaces: it gives the container a /tmp
// and a /proc of its own and becomes the program.
func containerInit(tmp string, argv []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Mount(tmp, "/tmp", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /tmp: %w", err)
	}
	if os.Getenv("JVM_TEST_READONLY") != "" {
		if err := unix.Mount("", "/tmp", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("remount /tmp: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := os.Chdir("/tmp"); err != nil {
		return err
	}
	return unix.Exec(argv[0], argv, []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"})
}

// jdks are the JDKs of this machine. One at least must be there.
func jdks(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name, home := range map[string]string{
		"jdk17": "/usr/lib/jvm/java-17-openjdk-amd64",
		"jdk25": "/usr/lib/jvm/temurin-25-jdk-amd64",
	} {
		if _, err := os.Stat(filepath.Join(home, "bin/java")); err == nil {
			found[name] = home
		}
	}
	if len(found) == 0 {
		t.Skip("not installed: a JDK (openjdk-17-jdk-headless)")
	}
	return found
}

// uidBase is where the container's user namespace begins outside.
const uidBase = 200000

type container struct {
	cmd  *exec.Cmd
	tmp  string // its /tmp, from outside
	pid  int
	out  *bufio.Reader
	dead chan struct{}
}

type containerOptions struct {
	readOnlyTmp bool
	userNS      bool
	cgroupFD    func(pid int) error // called while the program waits to start
}

// start runs a program in mount, pid and network namespaces of its own, and in
// a user namespace if asked to.
func start(t *testing.T, o containerOptions, argv ...string) *container {
	t.Helper()
	c := &container{tmp: shortTemp(t), dead: make(chan struct{})}
	c.cmd = exec.Command("/proc/self/exe", argv...)
	c.cmd.Env = []string{"JVM_TEST_TMP=" + c.tmp}
	if o.readOnlyTmp {
		c.cmd.Env = append(c.cmd.Env, "JVM_TEST_READONLY=1")
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if o.userNS {
		c.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: uidBase, Size: 65536}}
		c.cmd.SysProcAttr.UidMappings, c.cmd.SysProcAttr.GidMappings = ids, ids
		c.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
		c.cmd.SysProcAttr.Pdeathsig = 0
		if err := os.Chown(c.tmp, uidBase, uidBase); err != nil {
			t.Fatal(err)
		}
	}
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start container: %v", err)
	}
	c.pid = c.cmd.Process.Pid
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	return c
}

// shortTemp is a temporary directory that everybody may enter.
func shortTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "arbiter-jvm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// compile puts a class where a container sees it as /tmp.
func compile(t *testing.T, home, source, tmp string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(home, "bin/javac"), "-d", tmp, filepath.Join("testdata", source))
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("javac: %v: %s", err, b)
	}
}

// await waits for a line of the program's output.
func (c *container) await(t *testing.T, line string) {
	t.Helper()
	found := make(chan error, 1)
	go func() {
		for {
			s, err := c.out.ReadString('\n')
			if err != nil || strings.TrimSpace(s) == line {
				found <- err
				go io.Copy(io.Discard, c.out)
				return
			}
		}
	}()
	select {
	case err := <-found:
		if err != nil {
			t.Fatalf("wait for %q: %v", line, err)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("no %q in 60 s", line)
	}
}

// leftovers lists what was left in the container's /tmp. The JVM's own socket
// and the class files are not ours.
func (c *container) leftovers(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(c.tmp)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		n := e.Name()
		if strings.HasSuffix(n, ".class") || strings.HasPrefix(n, ".java_pid") || strings.HasPrefix(n, "hsperfdata") {
			continue
		}
		names = append(names, n)
	}
	return names
}
