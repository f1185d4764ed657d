package dump

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultMemory is a helper's memory limit. The pages of the file it writes
// count too; the kernel drops them as they reach the disk.
const DefaultMemory = 512 << 20

// enclose puts a helper into a cgroup of its own, so that neither its memory
// nor the page cache of its files count as the daemon's or the container's.
// It returns the directory to be removed, and what could not be had.
func (h Helper) enclose(pid int) (dir string, missing []string) {
	parent := h.Cgroup
	if parent == "" {
		parent = ownCgroup()
	}
	lacks := func(what string, err error) (string, []string) {
		return dir, append(missing, fmt.Sprintf("%s: %v", what, err))
	}
	if parent == "" {
		return lacks("the dump helper has no cgroup of its own", os.ErrNotExist)
	}
	sweep(parent)
	path := filepath.Join(parent, cgroupPrefix+strconv.Itoa(pid))
	if err := os.Mkdir(path, 0o755); err != nil {
		return lacks("the dump helper has no cgroup of its own", err)
	}
	dir = path
	if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return lacks("the dump helper has no cgroup of its own", err)
	}
	limit := h.MemoryBytes
	if limit == 0 {
		limit = DefaultMemory
	}
	name := "memory.max"
	if _, err := os.Stat(filepath.Join(path, "memory.limit_in_bytes")); err == nil {
		name = "memory.limit_in_bytes"
	}
	if err := os.WriteFile(filepath.Join(path, name), []byte(strconv.FormatUint(limit, 10)), 0); err != nil {
		return lacks("the dump helper has no memory limit of its own", err)
	}
	return dir, nil
}

// cgroupPrefix begins the names of helpers' cgroups; the helper's pid follows.
const cgroupPrefix = "arbiter-dump-"

// sweep removes what helpers left whose daemon died before it could.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*")) // the pattern is good
	for _, dir := range dirs {
		pid := strings.TrimPrefix(filepath.Base(dir), cgroupPrefix)
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			removeCgroup(dir)
		}
	}
}

// removeCgroup removes the cgroup of a dead helper.
func removeCgroup(dir string) {
	if dir != "" {
		_ = os.Remove(dir) // rmdir; nothing else holds it
	}
}

// ownCgroup is the directory of this process' memory cgroup, "" if it cannot
// be told.
func ownCgroup() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			mount := map[string]string{"memory": "/sys/fs/cgroup/memory", "": "/sys/fs/cgroup"}[c]
			dir := filepath.Join(mount, f[2])
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); mount != "" && err == nil {
				return dir
			}
		}
	}
	return ""
}
