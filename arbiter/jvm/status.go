package jvm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// status is what attaching needs of /proc/PID/status. The kernel takes none
// of the target's locks for it.
type status struct {
	uid, gid int    // effective, as our user namespace sees them
	nsPid    int    // in the process' own pid namespace
	caught   uint64 // signals, bit N-1 for signal N
	ignored  uint64
}

func readStatus(fs proc.FS, pid int) (status, error) {
	f, err := os.Open(fs.Path(pid, "status"))
	if err != nil {
		return status{}, goneOr("open status", err)
	}
	defer f.Close()
	return parseStatus(f)
}

// parseStatus parses
//
//	Uid:	1000	1000	1000	1000
//	NSpid:	4711	1
//	SigCgt:	2000000181005ccf
//
// Uid and Gid list real, effective, saved and filesystem ids; NSpid goes from
// the outermost pid namespace to the innermost.
func parseStatus(r io.Reader) (status, error) {
	var s status
	fields := map[string]func([]string) error{
		"Uid":    func(v []string) error { return parseInt(&s.uid, v, 1) },
		"Gid":    func(v []string) error { return parseInt(&s.gid, v, 1) },
		"NSpid":  func(v []string) error { return parseInt(&s.nsPid, v, len(v)-1) },
		"SigCgt": func(v []string) error { return parseMask(&s.caught, v) },
		"SigIgn": func(v []string) error { return parseMask(&s.ignored, v) },
	}
	sc := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ":")
		parse := fields[key]
		if parse == nil {
			continue
		}
		if err := parse(strings.Fields(value)); err != nil {
			return status{}, fmt.Errorf("parse status, %s: %w", key, err)
		}
		delete(fields, key)
	}
	if err := sc.Err(); err != nil {
		return status{}, goneOr("read status", err)
	}
	if len(fields) > 0 {
		return status{}, fmt.Errorf("parse status: %d of 5 lines missing", len(fields))
	}
	return s, nil
}

func parseInt(to *int, v []string, i int) error {
	if i < 0 || i >= len(v) {
		return fmt.Errorf("%d values", len(v))
	}
	n, err := strconv.Atoi(v[i])
	*to = n
	return err
}

func parseMask(to *uint64, v []string) error {
	if len(v) != 1 {
		return fmt.Errorf("%d values", len(v))
	}
	n, err := strconv.ParseUint(v[0], 16, 64)
	*to = n
	return err
}

// catchesQuit tells whether SIGQUIT reaches a handler. Which threads block it
// does not matter: HotSpot blocks it in all but one.
func (s status) catchesQuit() bool {
	const bit = 1 << (unix.SIGQUIT - 1)
	return s.caught&bit != 0 && s.ignored&bit == 0
}
