package action

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
)

const (
	maxTree   = 200 // cgroups below the container's
	maxLevels = 16
)

// Files of one line, of both versions: a kernel has one set of them, and what
// it does not have is left out.
var (
	usageFiles = []string{"memory.current", "memory.usage_in_bytes"}
	limitFiles = []string{"memory.max", "memory.limit_in_bytes"}
	peakFiles  = []string{"memory.peak", "memory.max_usage_in_bytes"}
	otherFiles = []string{
		"memory.min", "memory.low", "memory.high", "memory.oom.group",
		"memory.swap.current", "memory.swap.max", "memory.swap.peak", "memory.zswap.current", "cgroup.freeze",
		"memory.failcnt", "memory.memsw.usage_in_bytes", "memory.memsw.limit_in_bytes", "memory.memsw.max_usage_in_bytes",
		"memory.memsw.failcnt", "memory.kmem.usage_in_bytes", "memory.kmem.max_usage_in_bytes", "memory.kmem.tcp.usage_in_bytes",
		"memory.swappiness", "memory.use_hierarchy",
	}
	eventFiles = []string{"memory.events", "memory.oom_control", "cgroup.events"}
)

// cgroups reads the container's cgroup, its ancestors and what is below it.
func (c *collector) cgroups(ctx context.Context) {
	mount, err := memoryMount(c.env.Proc)
	if err != nil {
		c.miss("cgroup files: %v", err)
		return
	}
	root, err := os.OpenRoot(mount)
	if err != nil {
		c.miss("cgroup files: %v", err)
		return
	}
	defer root.Close()
	own := c.env.Cgroup.Path()
	if err := sameCgroup(root, own, c.env.Cgroup.ID()); err != nil {
		c.miss("cgroup files: %v", err)
		return
	}
	for p := own; p != "/" && len(c.r.Levels) < maxLevels; p = path.Dir(p) {
		l, err := readLevel(root, p, p == own)
		if err != nil {
			c.miss("cgroup %s: %v", p, err)
			continue
		}
		c.r.Levels = append(c.r.Levels, l)
	}
	c.tree(ctx, root, own)
}

// memoryMount is where the hierarchy that accounts memory is mounted: version
// 1's memory controller, else version 2.
func memoryMount(pfs proc.FS) (string, error) {
	mounts, err := pfs.Mounts(os.Getpid())
	if err != nil {
		return "", err
	}
	unified := ""
	for _, m := range mounts {
		if m.FSType == "cgroup" && slices.Contains(strings.Split(m.Super, ","), "memory") {
			return m.Point, nil
		}
		if m.FSType == "cgroup2" && unified == "" {
			unified = m.Point
		}
	}
	if unified == "" {
		return "", errors.New("no memory hierarchy is mounted")
	}
	return unified, nil
}

func sameCgroup(root *os.Root, dir string, id uint64) error {
	st, err := root.Stat("." + path.Clean(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return cgroup.ErrGone
	}
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && id != 0 && sys.Ino != id {
		return cgroup.ErrGone
	}
	return nil
}

// readLevel reads one cgroup. whole adds what only the container's own is
// asked for.
func readLevel(root *os.Root, dir string, whole bool) (level, error) {
	l := level{Path: dir, Values: map[string]string{}, Events: map[string]uint64{}}
	for _, name := range slices.Concat(usageFiles, limitFiles, peakFiles, otherFiles) {
		b, err := readIn(root, dir, name)
		if err == nil {
			l.Values[name] = printable(strings.TrimSpace(string(b)), 80)
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			return level{}, err
		}
	}
	if len(l.Values) == 0 {
		return level{}, cgroup.ErrGone
	}
	for _, name := range eventFiles {
		if b, err := readIn(root, dir, name); err == nil {
			maps.Copy(l.Events, parseFlatKeys(bytes.NewReader(b)))
		}
	}
	if b, err := readIn(root, dir, "memory.pressure"); err == nil {
		if p, err := proc.ParsePressure(bytes.NewReader(b)); err == nil {
			l.Pressure = &p
		}
	}
	if whole {
		b, err := readIn(root, dir, "memory.stat")
		if err != nil {
			return level{}, err
		}
		l.Stat = hierarchical(parseFlatKeys(bytes.NewReader(b)))
	}
	return l, nil
}

func readIn(root *os.Root, dir, name string) ([]byte, error) {
	f, err := root.Open("." + path.Join("/", dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// parseFlatKeys parses a flat keyed file, cgroup-v2.rst "Format":
//
//	anon 134217728
//	file 4096
//
// Lines of another form are skipped.
func parseFlatKeys(r io.Reader) map[string]uint64 {
	out := map[string]uint64{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[key] = n
		}
	}
	return out
}

// hierarchical prefers version 1's total_ keys, which count descendants too,
// as version 2 always does.
func hierarchical(stat map[string]uint64) map[string]uint64 {
	for key, n := range stat {
		if short, ok := strings.CutPrefix(key, "total_"); ok {
			stat[short] = n
			delete(stat, key)
		}
	}
	return stat
}

// tree lists the cgroups below the container's, breadth first.
func (c *collector) tree(ctx context.Context, root *os.Root, own string) {
	queue := []string{own}
	for len(queue) > 0 && ctx.Err() == nil {
		dir := queue[0]
		queue = queue[1:]
		if dir != own {
			if len(c.r.Tree) == maxTree {
				c.miss("cgroups below: only the first %d are listed", maxTree)
				return
			}
			c.r.Tree = append(c.r.Tree, readTreeEntry(root, own, dir))
		}
		children, err := childrenOf(root, dir)
		if err != nil {
			c.miss("cgroups below %s: %v", dir, err)
			continue
		}
		for _, name := range children {
			queue = append(queue, path.Join(dir, name))
		}
	}
}

func childrenOf(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open("." + path.Clean(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func readTreeEntry(root *os.Root, own, dir string) treeEntry {
	first := func(names []string) string {
		for _, name := range names {
			if b, err := readIn(root, dir, name); err == nil {
				return printable(strings.TrimSpace(string(b)), 24)
			}
		}
		return "?"
	}
	e := treeEntry{Path: printable(strings.TrimPrefix(dir, own+"/"), 200), Usage: first(usageFiles), Limit: first(limitFiles)}
	if b, err := readIn(root, dir, "cgroup.procs"); err == nil {
		e.Processes = bytes.Count(b, []byte("\n"))
	}
	return e
}
