package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// memoryRoot is the mount of the hierarchy with the memory controller.
func memoryRoot() string {
	if isV2() {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/memory"
}

func isV2() bool {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return err == nil && strings.Contains(string(b), "memory")
}

// hierarchies are the mounts of all of cgroup: one on v2, many on v1.
func hierarchies() []string {
	if isV2() {
		return []string{"/sys/fs/cgroup"}
	}
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*")
	return dirs
}

// limit writes the memory limit of a cgroup, which it makes if need be.
func limit(t testing.TB, rel string, bytes int64) {
	t.Helper()
	dir := filepath.Join(memoryRoot(), rel)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if !isV2() {
		write(t, filepath.Join(dir, "memory.limit_in_bytes"), strconv.FormatInt(bytes, 10))
		return
	}
	var parents []string
	for parent := filepath.Dir(dir); parent != "/sys/fs"; parent = filepath.Dir(parent) {
		parents = append(parents, parent)
	}
	slices.Reverse(parents) // a controller is handed down from the root
	for _, parent := range parents {
		write(t, filepath.Join(parent, "cgroup.subtree_control"), "+memory")
	}
	write(t, filepath.Join(dir, "memory.max"), strconv.FormatInt(bytes, 10))
}

func write(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// limitOf is the limit that the kernel has for a cgroup.
func limitOf(t testing.TB, rel string) int64 {
	t.Helper()
	file := "memory.limit_in_bytes"
	if isV2() {
		file = "memory.max"
	}
	text := read(t, filepath.Join(memoryRoot(), rel, file))
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s of %s is %q", file, rel, text)
	}
	return n
}

// removeCgroups removes the node's cgroup from every hierarchy.
func (n *node) removeCgroups() {
	for _, h := range hierarchies() {
		removeTree(n.t, filepath.Join(h, n.name))
	}
}

// removeTree removes a cgroup and what is below it: rmdir alone, never the
// files. A dying process may keep it for a moment.
func removeTree(t testing.TB, dir string) {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	if err != nil {
		t.Errorf("clean up: %v", err)
	}
	slices.Reverse(dirs)
	for _, d := range dirs {
		for range 200 {
			err = os.Remove(d)
			if !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("clean up: %v", err)
		}
	}
}

// unmountBelow lets go of the mounts below a directory, innermost first.
func unmountBelow(t testing.TB, dir string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Errorf("clean up: %v", err)
		return
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	slices.Reverse(points)
	for _, p := range points {
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil {
			t.Errorf("clean up: unmount %s: %v", p, err)
		}
	}
}

// eventually asks again until there is no error any more.
func eventually(t testing.TB, within time.Duration, what string, f func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Since(start) > within {
			t.Fatalf("not within %v: %s: %v", within, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func tail(name string, lines int) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func readFile(root string, pid int, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(root, strconv.Itoa(pid), name))
}

// leftIn lists the entries of a directory whose names begin with prefix.
func leftIn(t testing.TB, dir, prefix string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}
