package cgroup

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/arbiterd/arbiter/policy"
)

// The kernel files of the version 1 memory controller that are used here; see
// Documentation/admin-guide/cgroup-v1/memory.rst.
const (
	fileOOMControl = "memory.oom_control"
	fileLimit      = "memory.limit_in_bytes"
	fileMemsw      = "memory.memsw.limit_in_bytes" // memory and swap; absent without swap accounting
	fileUsage      = "memory.usage_in_bytes"
	fileMemswUsage = "memory.memsw.usage_in_bytes"
	filePeak       = "memory.max_usage_in_bytes"
	fileStat       = "memory.stat"
	fileEvents     = "cgroup.event_control"
)

// noLimitBytes is where "no limit" begins: the kernel shows the largest number
// of bytes that is a whole number of pages, and the page size varies.
const noLimitBytes = 1 << 62

// pageBytes is the granularity of limits. Every kernel that we know of rounds
// down to its own page size, of which this is the smallest.
const pageBytes = 4096

// limitOf is a limit as version 1 shows it, as a type.
func limitOf(n uint64) policy.Limit {
	if n >= noLimitBytes {
		return policy.NoLimit
	}
	return policy.LimitOf(n)
}

// oomControl is memory.oom_control.
type oomControl struct {
	killDisabled bool   // the flag: an allocation at the limit sleeps instead of killing
	underOOM     bool   // somebody sleeps here, or at an ancestor's limit
	oomKill      uint64 // kills of members of this very cgroup, since 4.13
}

// oomControl reads memory.oom_control.
func (d *dir) oomControl() (oomControl, error) {
	b, err := d.read(fileOOMControl)
	if err != nil {
		return oomControl{}, err
	}
	return parseOOMControl(b)
}

// parseOOMControl reads memory.oom_control:
//
//	oom_kill_disable 0
//	under_oom 0
//	oom_kill 0
func parseOOMControl(b []byte) (oomControl, error) {
	var c oomControl
	seen := false
	err := parseKeys(b, func(key string, n uint64) {
		switch key {
		case "oom_kill_disable":
			c.killDisabled, seen = n != 0, true
		case "under_oom":
			c.underOOM = n != 0
		case "oom_kill":
			c.oomKill = n
		}
	})
	if err == nil && !seen {
		err = fmt.Errorf("no oom_kill_disable in %q", b)
	}
	if err != nil {
		return oomControl{}, fmt.Errorf("parse memory.oom_control: %w", err)
	}
	return c, nil
}

// flagValue is the flag as it is written to memory.oom_control.
func flagValue(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// memoryStat is what memory.stat tells of a cgroup with all its descendants,
// in bytes.
type memoryStat struct {
	rss          uint64 // anonymous memory, swap cache included; no shmem
	activeFile   uint64 // page cache but shmem, which is on the anon lists
	inactiveFile uint64
	swap         uint64
}

// memoryStat reads memory.stat.
func (d *dir) memoryStat() (memoryStat, error) {
	b, err := d.read(fileStat)
	if err != nil {
		return memoryStat{}, err
	}
	return parseMemoryStat(b)
}

// parseMemoryStat reads the hierarchical keys of version 1's memory.stat:
//
//	total_rss 268435456
//	total_active_file 4096
func parseMemoryStat(b []byte) (memoryStat, error) {
	var s memoryStat
	err := parseKeys(b, func(key string, n uint64) {
		switch key {
		case "total_rss":
			s.rss = n
		case "total_active_file":
			s.activeFile = n
		case "total_inactive_file":
			s.inactiveFile = n
		case "total_swap":
			s.swap = n
		}
	})
	if err != nil {
		return memoryStat{}, fmt.Errorf("parse memory.stat: %w", err)
	}
	return s, nil
}

// parseKeys reads lines of a key and a number, as most cgroup files have. Keys
// that a later kernel adds are the caller's to ignore.
func parseKeys(b []byte, f func(key string, n uint64)) error {
	for line := range bytes.Lines(b) {
		key, value, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		if !ok {
			return fmt.Errorf("line %q", line)
		}
		n, err := strconv.ParseUint(string(value), 10, 64)
		if err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		f(string(key), n)
	}
	return nil
}
