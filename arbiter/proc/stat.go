package proc

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Stat is what Arbiter needs of /proc/PID/stat. The kernel takes none of the
// target's locks for it.
type Stat struct {
	Comm    string // whatever the process calls itself: up to 15 bytes of anything
	State   byte   // R S D T t Z X I
	PPid    int
	Threads int
	Start   uint64 // clock ticks since boot: with the pid it names a process for good
}

// Stat reads /proc/PID/stat.
func (fs FS) Stat(pid int) (Stat, error) { return parse(fs, pid, "stat", parseStat) }

// parseStat parses one line, proc_pid_stat(5):
//
//	4711 (a) b (c) S 1 4711 4711 0 -1 4194560 ...
//
// The command may hold blanks, parentheses and newlines, so it ends at the
// last closing parenthesis.
func parseStat(r io.Reader) (Stat, error) {
	b, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return Stat{}, err
	}
	s := string(b)
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("no command")
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return Stat{}, fmt.Errorf("%d fields after the command", len(f))
	}
	st := Stat{Comm: s[open+1 : end], State: f[0][0]}
	ppid, err1 := strconv.Atoi(f[1])
	threads, err2 := strconv.Atoi(f[17])
	start, err3 := strconv.ParseUint(f[19], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Stat{}, err
	}
	st.PPid, st.Threads, st.Start = ppid, threads, start
	return st, nil
}

// Wchan is the kernel function in which the process' main thread sleeps, ""
// while it runs.
func (fs FS) Wchan(pid int) (string, error) {
	s, err := parse(fs, pid, "wchan", line)
	if s == "0" {
		s = ""
	}
	return s, err
}
