// Package jvmkit runs real JVMs in namespaces of their own for tests. It needs
// a JDK, a shell and mount(8), so its tests run on a full machine only.
package jvmkit

import (
	"bufio"
	"embed"
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

//go:embed testdata/*.java
var sources embed.FS

// Patience is how long a program may take to start.
const Patience = 60 * time.Second

// JDKs are the JDKs of this machine by name: "jdk17", "jdk25".
func JDKs(t testing.TB) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name, glob := range map[string]string{
		"jdk17": "/usr/lib/jvm/java-17-openjdk-*",
		"jdk21": "/usr/lib/jvm/*-21-*",
		"jdk25": "/usr/lib/jvm/*-25-*",
	} {
		homes, err := filepath.Glob(filepath.Join(glob, "bin/javac"))
		if err == nil && len(homes) > 0 {
			found[name] = filepath.Dir(filepath.Dir(homes[0]))
		}
	}
	if len(found) == 0 {
		t.Skip("not installed: a JDK (openjdk-17-jdk-headless)")
	}
	return found
}

// JDK is the oldest one of them.
func JDK(t testing.TB) string {
	t.Helper()
	all := JDKs(t)
	for _, name := range []string{"jdk17", "jdk21", "jdk25"} {
		if home, ok := all[name]; ok {
			return home
		}
	}
	return ""
}

// uidBase is where a container's user namespace begins outside.
const uidBase = 200000

// Options say what a container is like.
type Options struct {
	ReadOnlyTmp bool
	MemoryTmp   bool          // /tmp is a tmpfs: Container.Tmp shows nothing of it
	UserNS      bool          // also a user namespace: its root is nobody outside
	Place       func(pid int) // puts it into a cgroup before it starts
}

// A Container is a program in mount, pid and network namespaces of its own,
// where it is pid 1 and has a /tmp of its own.
type Container struct {
	Pid int
	Tmp string // its /tmp, from outside
	Cmd *exec.Cmd

	out *bufio.Reader
}

// inside runs as pid 1: it waits to be placed and becomes the program.
const inside = `set -e
mount --make-rprivate /
if [ -n "$MEMORY_TMP" ]; then mount -t tmpfs tmp /tmp; else mount --bind "$OWN_TMP" /tmp; fi
if [ -n "$READONLY_TMP" ]; then mount -o remount,bind,ro /tmp; fi
mount -t proc proc /proc
ip link set lo up
cd /tmp
read placed
exec env -i PATH=/usr/bin:/bin LANG=C.UTF-8 "$@"`

// Start runs a program until the test ends.
func Start(t testing.TB, o Options, argv ...string) *Container {
	t.Helper()
	c := &Container{Tmp: TempDir(t)}
	c.Cmd = exec.Command("/bin/sh", append([]string{"-c", inside, "sh"}, argv...)...)
	c.Cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "OWN_TMP=" + c.Tmp}
	if o.ReadOnlyTmp {
		c.Cmd.Env = append(c.Cmd.Env, "READONLY_TMP=1")
	}
	if o.MemoryTmp {
		c.Cmd.Env = append(c.Cmd.Env, "MEMORY_TMP=1")
	}
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET}
	if o.UserNS {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: uidBase, Size: 65536}}
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings, attr.GidMappings = ids, ids
		attr.Credential = &syscall.Credential{NoSetGroups: true}
		if err := os.Chown(c.Tmp, uidBase, uidBase); err != nil {
			t.Fatal(err)
		}
	}
	c.Cmd.SysProcAttr = attr
	c.Cmd.Stderr = os.Stderr
	c.run(t, o)
	return c
}

func (c *Container) run(t testing.TB, o Options) {
	t.Helper()
	in, err := c.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.Cmd.Start(); err != nil {
		t.Fatalf("start container: %v", err)
	}
	c.Pid = c.Cmd.Process.Pid
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Cmd.Process.Kill()
		_ = c.Cmd.Wait()
	})
	if o.Place != nil {
		o.Place(c.Pid)
	}
	if _, err := io.WriteString(in, "placed\n"); err != nil {
		t.Fatal(err)
	}
}

// Await waits for a line of the program's output. What follows is thrown away.
func (c *Container) Await(t testing.TB, line string) {
	t.Helper()
	out := c.AwaitAndKeep(t, line)
	go func() { _, _ = io.Copy(io.Discard, out) }() // a full pipe would stop the program
}

// AwaitAndKeep is Await for a test that reads on by itself.
func (c *Container) AwaitAndKeep(t testing.TB, line string) *bufio.Reader {
	t.Helper()
	found := make(chan error, 1)
	go func() {
		for {
			s, err := c.out.ReadString('\n')
			if err != nil || strings.TrimSpace(s) == line {
				found <- err
				return
			}
		}
	}()
	select {
	case err := <-found:
		if err != nil {
			t.Fatalf("wait for %q: %v", line, err)
		}
	case <-time.After(Patience):
		t.Fatalf("no %q within %s", line, Patience)
	}
	return c.out
}

// Leftovers lists what somebody left in the container's /tmp beside the JVM's
// own files.
func (c *Container) Leftovers(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(c.Tmp)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); !strings.HasPrefix(n, ".java_pid") && !strings.HasPrefix(n, "hsperfdata") {
			names = append(names, n)
		}
	}
	return names
}

// TempDir is a temporary directory outside of /tmp that everybody may enter.
func TempDir(t testing.TB) string {
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

// Compile compiles one of the package's sources and returns its class path.
func Compile(t testing.TB, home, source string) string {
	t.Helper()
	dir := TempDir(t)
	text, err := sources.ReadFile("testdata/" + source)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, source)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(filepath.Join(home, "bin/javac"), "-d", dir, file).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v: %s", err, b)
	}
	return dir
}

// Leaker starts Leak.java and waits until it has leaked mb megabytes. It goes
// on at rate megabytes a second.
func Leaker(t testing.TB, home string, o Options, jvmArgs []string, mb, rate string) *Container {
	t.Helper()
	c := LeakerAtOnce(t, home, o, jvmArgs, mb, rate)
	c.Await(t, "ready")
	return c
}

// LeakerAtOnce is Leaker without the wait.
func LeakerAtOnce(t testing.TB, home string, o Options, jvmArgs []string, mb, rate string) *Container {
	t.Helper()
	classes := Compile(t, home, "Leak.java")
	argv := append([]string{filepath.Join(home, "bin/java")}, jvmArgs...)
	return Start(t, o, append(argv, "-cp", classes, "Leak", mb, rate)...)
}
