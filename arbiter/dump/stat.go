package dump

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A stat is what a core's notes need of /proc/PID/stat or of a thread's.
type stat struct {
	Comm                string
	State               byte // R S D T t Z X I
	PPid, Pgrp, Session int
	Flags               uint64
	UTime, STime        uint64 // clock ticks, 100 a second
	CUTime, CSTime      uint64
	Nice                int
	Start               uint64 // clock ticks since boot: with the pid it names a process for good
}

// parseStat reads a line of the form "123 (comm) S 1 123 123 ...". The
// command may hold anything, parentheses and newlines too.
func parseStat(b []byte) (stat, error) {
	open, closed := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || closed < open {
		return stat{}, fmt.Errorf("parse stat: no command in %.80q", b)
	}
	f := strings.Fields(string(b[closed+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return stat{}, fmt.Errorf("parse stat: %d fields after the command", len(f))
	}
	s := stat{Comm: string(b[open+1 : closed]), State: f[0][0]}
	// Field numbers of proc(5) are three higher than these indexes.
	for _, x := range []struct {
		index int
		to    *uint64
	}{{6, &s.Flags}, {11, &s.UTime}, {12, &s.STime}, {19, &s.Start}} {
		n, err := strconv.ParseUint(f[x.index], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("parse stat: field %d: %w", x.index+3, err)
		}
		*x.to = n
	}
	for _, x := range []struct {
		index int
		to    *int
	}{{1, &s.PPid}, {2, &s.Pgrp}, {3, &s.Session}, {16, &s.Nice}} {
		n, err := strconv.ParseInt(f[x.index], 10, 32)
		if err != nil {
			return stat{}, fmt.Errorf("parse stat: field %d: %w", x.index+3, err)
		}
		*x.to = int(n)
	}
	// The times of waited-for children are signed in the kernel; never mind a
	// nonsensical one.
	s.CUTime, _ = strconv.ParseUint(f[13], 10, 64)
	s.CSTime, _ = strconv.ParseUint(f[14], 10, 64)
	return s, nil
}

// A procDir is /proc/PID or /proc/PID/task/TID.
type procDir string

func processDir(pid int) procDir { return procDir("/proc/" + strconv.Itoa(pid)) }

func (d procDir) thread(tid int) procDir { return d + procDir("/task/"+strconv.Itoa(tid)) }

func (d procDir) path(name string) string { return filepath.Join(string(d), name) }

func (d procDir) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d procDir) stat() (stat, error) {
	b, err := d.read("stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// tasks lists the thread ids of a process.
func (d procDir) tasks() ([]int, error) {
	f, err := os.Open(d.path("task"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	tids := make([]int, 0, len(names))
	for _, name := range names {
		tid, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("list %s/task: %w", d, err)
		}
		tids = append(tids, tid)
	}
	return tids, nil
}

// statusField finds the value of one line of /proc/PID/status.
func statusField(status []byte, key string) string {
	for line := range bytes.Lines(status) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(name) == key {
			return strings.TrimSpace(string(value))
		}
	}
	return ""
}

// StartTime is when process pid was started, in clock ticks since boot. It
// tells a process from a later one with the same pid.
func StartTime(pid int) (uint64, error) {
	s, err := processDir(pid).stat()
	if err != nil {
		return 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	return s.Start, nil
}
