package cgroup

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// mounts are the cgroup hierarchies under one root, each by its mount point.
// An empty string is a hierarchy that is not mounted there.
type mounts struct {
	memory  string // v1 memory
	freezer string // v1 freezer
	unified string // cgroup2: the only one, or the hybrid tree's
}

// A mountEntry is one cgroup line of /proc/self/mountinfo.
type mountEntry struct {
	root, point, fstype, options string
}

// findMounts picks the hierarchies mounted at root or below it.
func findMounts(root string) (mounts, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mounts{}, fmt.Errorf("find cgroup mounts: %w", err)
	}
	defer f.Close()
	entries, err := parseMountinfo(f)
	if err != nil {
		return mounts{}, fmt.Errorf("find cgroup mounts: %w", err)
	}
	return pickMounts(entries, root), nil
}

func pickMounts(entries []mountEntry, root string) mounts {
	var m mounts
	root = strings.TrimRight(root, "/")
	for _, e := range entries {
		if e.point != root && !strings.HasPrefix(e.point, root+"/") {
			continue
		}
		controllers := strings.Split(e.options, ",")
		switch {
		case e.fstype == "cgroup2" && m.unified == "":
			m.unified = e.point
		case e.fstype == "cgroup" && m.memory == "" && slices.Contains(controllers, "memory"):
			m.memory = e.point
		}
		if e.fstype == "cgroup" && m.freezer == "" && slices.Contains(controllers, "freezer") {
			m.freezer = e.point
		}
	}
	return m
}

// parseMountinfo reads the cgroup mounts of a mountinfo file:
//
//	35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
//
// The fields before the dash may be followed by any number of optional ones.
// Spaces in paths are escaped in octal.
func parseMountinfo(r io.Reader) ([]mountEntry, error) {
	var entries []mountEntry
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 2 {
			return nil, fmt.Errorf("parse mountinfo line %q", lines.Text())
		}
		if right[0] != "cgroup" && right[0] != "cgroup2" {
			continue
		}
		e := mountEntry{root: unescapeOctal(left[3]), point: unescapeOctal(left[4]), fstype: right[0]}
		if len(right) > 2 {
			e.options = right[2]
		}
		entries = append(entries, e)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("parse mountinfo: %w", err)
	}
	return entries, nil
}

// unescapeOctal undoes the kernel's \040 for a space, and the like.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
