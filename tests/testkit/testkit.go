// Package testkit makes real cgroups with real processes in them for tests, on
// cgroup v1 and v2, and always removes them again. A test package that uses it
// calls Main from its TestMain: the processes are the test binary itself.
package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a test waits for a state before it fails. No test
// asserts on shorter times: the machines are shared and slow.
const Patience = time.Minute

// serial makes the names of one process' trees differ.
var serial atomic.Uint32

// A Group is one test cgroup, in every hierarchy that matters.
type Group struct {
	Path string // relative to the memory hierarchy's mount, with a leading slash
	t    testing.TB
	m    mounts
	opts Options
}

// Options say how a Group is made.
type Options struct {
	Limit     uint64 // bytes; 0 is none
	NoFreezer bool   // v1: the processes stay in the root of the freezer hierarchy
	Unified   bool   // v1: the processes also get a directory of their own in cgroup2
}

// Tree makes a cgroup of a unique name. Everything in it and below is killed,
// thawed and removed when the test ends.
func Tree(t testing.TB, o Options) *Group {
	t.Helper()
	m := findMounts(t)
	name := fmt.Sprintf("/arbiter-test-%d-%d", os.Getpid(), serial.Add(1))
	if m.version == 2 {
		enableMemory(t, m.memory)
	}
	g := &Group{Path: name, t: t, m: m, opts: o}
	t.Cleanup(g.remove)
	g.make()
	return g
}

// Child makes a cgroup below g.
func (g *Group) Child(name string, o Options) *Group {
	g.t.Helper()
	if g.m.version == 2 {
		enableMemory(g.t, g.Dir())
	}
	c := &Group{Path: g.Path + "/" + name, t: g.t, m: g.m, opts: o}
	c.make()
	return c
}

// enableMemory gives children of a v2 directory a memory controller.
func enableMemory(t testing.TB, dir string) {
	t.Helper()
	err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0)
	if err != nil {
		t.Fatal(err)
	}
}

func (g *Group) make() {
	g.t.Helper()
	for _, dir := range g.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			g.t.Fatal(err)
		}
	}
	if g.opts.Limit != 0 {
		g.SetLimit(g.opts.Limit)
	}
}

// dirs are the group's directories, the memory hierarchy's first.
func (g *Group) dirs() []string {
	dirs := []string{g.m.memory + g.Path}
	if g.m.version == 1 && g.m.freezer != "" && !g.opts.NoFreezer {
		dirs = append(dirs, g.m.freezer+g.Path)
	}
	if g.m.version == 1 && g.opts.Unified {
		dirs = append(dirs, g.m.unified+g.Path)
	}
	return dirs
}

// Dir is the group's directory in the memory hierarchy.
func (g *Group) Dir() string { return g.m.memory + g.Path }

// FreezerDir is the group's directory in the v1 freezer hierarchy.
func (g *Group) FreezerDir() string { return g.m.freezer + g.Path }

// UnifiedDir is the group's directory in the cgroup2 tree.
func (g *Group) UnifiedDir() string { return g.m.unified + g.Path }

// Version is the memory controller's cgroup version.
func (g *Group) Version() int { return g.m.version }

// Read returns a file of the memory directory, trimmed.
func (g *Group) Read(name string) string {
	g.t.Helper()
	return g.read(filepath.Join(g.Dir(), name))
}

func (g *Group) read(path string) string {
	g.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// Write puts a value into a file of the memory directory.
func (g *Group) Write(name, value string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.Dir(), name), []byte(value), 0); err != nil {
		g.t.Fatal(err)
	}
}

// Number reads a file that holds one number; "max" is the largest.
func (g *Group) Number(name string) uint64 {
	g.t.Helper()
	v := g.Read(name)
	if v == "max" {
		return 1<<64 - 1
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// Key reads one key of a file of keys and numbers.
func (g *Group) Key(name, key string) uint64 {
	g.t.Helper()
	for line := range strings.Lines(g.Read(name)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+" "); ok {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return n
		}
	}
	g.t.Fatalf("%s has no key %s", name, key)
	return 0
}

// limitFile is where the hard limit is set.
func (g *Group) limitFile() string {
	if g.m.version == 2 {
		return "memory.max"
	}
	return "memory.limit_in_bytes"
}

// SetLimit writes the hard limit, as a container runtime would.
func (g *Group) SetLimit(bytes uint64) {
	g.t.Helper()
	g.Write(g.limitFile(), strconv.FormatUint(bytes, 10))
}

// Limit reads the hard limit.
func (g *Group) Limit() uint64 {
	g.t.Helper()
	return g.Number(g.limitFile())
}

// Usage reads what is charged.
func (g *Group) Usage() uint64 {
	g.t.Helper()
	if g.m.version == 2 {
		return g.Number("memory.current")
	}
	return g.Number("memory.usage_in_bytes")
}

// Peak reads the most memory that was ever charged, in bytes. On version 2 it is
// known since Linux 5.19.
func (g *Group) Peak() uint64 {
	g.t.Helper()
	if g.m.version == 2 {
		return g.Number("memory.peak")
	}
	return g.Number("memory.max_usage_in_bytes")
}

// Kills reads how many processes of the group the kernel has killed.
func (g *Group) Kills() uint64 {
	g.t.Helper()
	if g.m.version == 2 {
		return g.Key("memory.events", "oom_kill")
	}
	return g.Key("memory.oom_control", "oom_kill")
}

// Frozen reports whether the group's own freezer says that all stands still.
// Where it has none, use the processes' states.
func (g *Group) Frozen() bool {
	g.t.Helper()
	switch {
	case g.m.version == 2:
		return g.Key("cgroup.events", "frozen") == 1
	case g.opts.NoFreezer && g.opts.Unified:
		return strings.Contains(g.read(g.UnifiedDir()+"/cgroup.events"), "frozen 1")
	default:
		return g.read(g.FreezerDir()+"/freezer.state") == "FROZEN"
	}
}

// Pids lists the group's processes.
func (g *Group) Pids() []int {
	pids, err := readPids(g.Dir())
	if err != nil {
		return nil
	}
	return pids
}

func readPids(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Place moves a process into the group.
func (g *Group) Place(pid int) {
	g.t.Helper()
	for _, dir := range g.dirs() {
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil {
			g.t.Fatal(err)
		}
	}
}

// Record returns the undo record, empty if there is none.
func (g *Group) Record() string {
	b := make([]byte, 1<<16)
	n, err := unix.Getxattr(g.Dir(), "trusted.arbiter", b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// Eventually waits until ok holds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

// remove ends everything in the tree, whatever state a test left it in. All
// hierarchies take turns: what one has frozen keeps the others from emptying.
func (g *Group) remove() {
	var roots []string
	for _, mount := range []string{g.m.memory, g.m.freezer, g.m.unified} {
		if mount != "" {
			roots = append(roots, mount+g.Path)
		}
	}
	roots = append(roots, g.holdFreezers()...)
	for end := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		var errs []error
		for _, root := range roots {
			errs = append(errs, sweep(root))
		}
		err := errors.Join(errs...)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			g.t.Errorf("left behind: %v", err)
			return
		}
	}
}

// holdFreezers are the freezer cgroups that the product may have made for
// groups of this tree.
func (g *Group) holdFreezers() []string {
	var holds []string
	_ = filepath.WalkDir(g.Dir(), func(path string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && e.IsDir() && unix.Stat(path, &st) == nil {
			hold := fmt.Sprintf("%s/arbiter-hold-%d", g.m.freezer, st.Ino)
			if _, err := os.Stat(hold); err == nil {
				holds = append(holds, hold)
			}
		}
		return nil
	})
	return holds
}

// sweep kills, thaws and removes a tree once; an error says that it must be
// tried again. Files that one version lacks are not written: no error counts
// but the directories that remain.
func sweep(root string) error {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range dirs {
		pids, _ := readPids(d)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for name, value := range map[string]string{"memory.oom_control": "0", "freezer.state": "THAWED", "cgroup.freeze": "0"} {
			if f, err := os.OpenFile(filepath.Join(d, name), os.O_WRONLY, 0); err == nil {
				_, _ = f.WriteString(value)
				f.Close()
			}
		}
	}
	var errs []error
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("rmdir %s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}
