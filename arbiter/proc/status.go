package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Status is what Arbiter needs of /proc/PID/status. The kernel takes none of
// the target's locks for it. Sizes are in bytes; they are 0 for a process
// whose memory is already gone (a zombie, a kernel thread).
type Status struct {
	UIDs, GIDs [4]int // real, effective, saved, filesystem; as our user namespace sees them
	NSPids     []int  // from our pid namespace to the process' own
	Threads    int

	VmSize, VmRSS, VmHWM, VmSwap, VmLck uint64
	RssAnon, RssFile, RssShmem          uint64

	// Bit N-1 stands for signal N.
	SigBlocked, SigIgnored, SigCaught uint64
	CapEffective                      uint64
	NoNewPrivs, Seccomp               int
}

// Status reads /proc/PID/status.
func (fs FS) Status(pid int) (Status, error) { return parse(fs, pid, "status", parseStatus) }

// parseStatus parses lines such as
//
//	Uid:	1000	1000	1000	1000
//	VmRSS:	    2512 kB
//	NSpid:	4711	1
//	SigCgt:	2000000181005ccf
//
// Unknown keys are ignored. Uid is in every kernel's file: without it, this is
// no status.
func parseStatus(r io.Reader) (Status, error) {
	var s Status
	fields := s.fields()
	seen := false
	sc := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ":")
		set := fields[key]
		if set == nil {
			continue
		}
		if err := set(strings.Fields(value)); err != nil {
			return Status{}, fmt.Errorf("%s: %w", key, err)
		}
		seen = seen || key == "Uid"
	}
	if err := sc.Err(); err != nil {
		return Status{}, err
	}
	if !seen {
		return Status{}, errors.New("no Uid line")
	}
	return s, nil
}

// fields maps the keys to how their values are stored in s.
func (s *Status) fields() map[string]func([]string) error {
	return map[string]func([]string) error{
		"Uid":        intsInto(s.UIDs[:]),
		"Gid":        intsInto(s.GIDs[:]),
		"NSpid":      func(v []string) (err error) { s.NSPids, err = ints(v); return err },
		"Threads":    func(v []string) error { return oneInt(&s.Threads, v) },
		"VmSize":     kilobytes(&s.VmSize),
		"VmRSS":      kilobytes(&s.VmRSS),
		"VmHWM":      kilobytes(&s.VmHWM),
		"VmSwap":     kilobytes(&s.VmSwap),
		"VmLck":      kilobytes(&s.VmLck),
		"RssAnon":    kilobytes(&s.RssAnon),
		"RssFile":    kilobytes(&s.RssFile),
		"RssShmem":   kilobytes(&s.RssShmem),
		"SigBlk":     mask(&s.SigBlocked),
		"SigIgn":     mask(&s.SigIgnored),
		"SigCgt":     mask(&s.SigCaught),
		"CapEff":     mask(&s.CapEffective),
		"NoNewPrivs": func(v []string) error { return oneInt(&s.NoNewPrivs, v) },
		"Seccomp":    func(v []string) error { return oneInt(&s.Seccomp, v) },
	}
}

func ints(v []string) ([]int, error) {
	out := make([]int, len(v))
	for i, f := range v {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

func intsInto(to []int) func([]string) error {
	return func(v []string) error {
		n, err := ints(v)
		if err == nil && len(n) != len(to) {
			err = fmt.Errorf("%d values", len(n))
		}
		copy(to, n)
		return err
	}
}

func oneInt(to *int, v []string) error {
	if len(v) != 1 {
		return fmt.Errorf("%d values", len(v))
	}
	n, err := strconv.Atoi(v[0])
	*to = n
	return err
}

func kilobytes(to *uint64) func([]string) error {
	return func(v []string) error {
		if len(v) != 2 || v[1] != "kB" {
			return fmt.Errorf("want a number of kB, got %.40q", strings.Join(v, " "))
		}
		n, err := strconv.ParseUint(v[0], 10, 54)
		*to = n << 10
		return err
	}
}

func mask(to *uint64) func([]string) error {
	return func(v []string) error {
		if len(v) != 1 {
			return fmt.Errorf("%d values", len(v))
		}
		n, err := strconv.ParseUint(v[0], 16, 64)
		*to = n
		return err
	}
}
