package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pids lists the processes of d and of every cgroup below it.
func (d *dir) pids() ([]int, error) {
	var all []int
	err := d.walk(func(d *dir) error {
		own, err := d.ownPids()
		all = append(all, own...)
		return ignoreGone(err)
	})
	if err == nil && !d.alive() {
		err = fmt.Errorf("list processes of %s: %w", d.path, ErrGone)
	}
	return all, err
}

// ownPids lists the processes of d alone. The file is opened anew for each
// reading: version 1 caches the list of an open file for a second.
func (d *dir) ownPids() ([]int, error) {
	b, err := d.read("cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // a threaded cgroup: its processes are its domain's
	}
	if err != nil {
		return nil, err
	}
	return parsePids(b)
}

// parsePids reads cgroup.procs: one pid per line. A process of another pid
// namespace reads 0 and is left out: nothing can be done to it from here.
func parsePids(b []byte) ([]int, error) {
	var pids []int
	for line := range bytes.Lines(b) {
		pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if err != nil || pid < 0 {
			return nil, fmt.Errorf("parse cgroup.procs line %q", line)
		}
		if pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// procStat is what identifies a process and tells what it does.
type procStat struct {
	state  byte // R, S, D, T, Z...
	parent int
	start  uint64 // clock ticks since boot
}

// readStat reads /proc/PID/stat of a process or, with path PID/task/TID, of a
// thread. That file never waits for the process.
func readStat(proc, path string) (procStat, error) {
	b, err := os.ReadFile(proc + "/" + path + "/stat")
	if err != nil {
		return procStat{}, processGone(err)
	}
	return parseStat(b)
}

// parseStat reads a stat line. The command name, in parentheses, may itself
// hold spaces and parentheses, so counting starts behind the last one:
//
//	4213 (app (x)) S 1 4213 4213 0 -1 ... 19 fields ... 123456 ...
func parseStat(b []byte) (procStat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, fmt.Errorf("parse stat: no command name in %q", b)
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return procStat{}, fmt.Errorf("parse stat: %d fields", len(f))
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("parse stat: start time %q", f[19])
	}
	parent, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return procStat{}, fmt.Errorf("parse stat: parent %q", f[1])
	}
	return procStat{state: f[0][0], parent: parent, start: start}, nil
}

func processGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return err
}

// identify names a process so that it cannot be taken for a later one.
func identify(proc string, pid int) (Process, error) {
	st, err := readStat(proc, strconv.Itoa(pid))
	return Process{Pid: pid, Start: st.start}, err
}

// still reports whether p has not exited.
func (p Process) still(proc string) bool {
	st, err := readStat(proc, strconv.Itoa(p.Pid))
	return err == nil && st.start == p.Start
}

// membership is where a process is in each hierarchy.
type membership struct {
	memory, freezer, unified string
}

// readMembership reads /proc/PID/cgroup.
func readMembership(proc string, pid int) (membership, error) {
	b, err := os.ReadFile(proc + "/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return membership{}, processGone(err)
	}
	return parseMembership(b)
}

// parseMembership reads lines of the form hierarchy:controllers:path; the
// hierarchy of cgroup2 is 0 and names no controllers:
//
//	4:memory:/kubepods/pod1/c1
//	0::/kubepods/pod1/c1
func parseMembership(b []byte) (membership, error) {
	var m membership
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return membership{}, fmt.Errorf("parse cgroup line %q", line)
		}
		path := strings.TrimSuffix(f[2], " (deleted)")
		if f[0] == "0" && f[1] == "" {
			m.unified = path
		}
		for controller := range strings.SplitSeq(f[1], ",") {
			switch controller {
			case "memory":
				m.memory = path
			case "freezer":
				m.freezer = path
			}
		}
	}
	return m, nil
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// threads lists the threads of a process; none if it is gone.
func threads(proc string, pid int) []int {
	entries, err := os.ReadDir(proc + "/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return nil
	}
	var tids []int
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}
