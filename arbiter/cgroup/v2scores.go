package cgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// scoreExempt is the oom_score_adj of a task that the kernel never picks.
	scoreExempt = -1000
	// scorePasses bounds how often the processes are listed again because new
	// ones were found. A fork of an exempt process is exempt itself, so only
	// the forks of those not yet reached are new.
	scorePasses = 20
)

// mayExempt reports whether this process may lower an oom_score_adj below what
// it once was: the kernel asks for CAP_SYS_RESOURCE in the first user
// namespace, which root in a container lacks.
func mayExempt() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// A scoreboard reads and writes oom_score_adj below one procfs.
type scoreboard struct{ proc string }

func (b scoreboard) file(pid int) string { return b.proc + "/" + strconv.Itoa(pid) + "/oom_score_adj" }

// read takes one read(2): the kernel makes the text anew for each, and two
// could give halves of different values.
func (b scoreboard) read(pid int) (int, error) {
	f, err := os.Open(b.file(pid))
	if err != nil {
		return 0, processGone(err)
	}
	defer f.Close()
	var text [16]byte
	n, err := f.Read(text[:])
	if err != nil {
		return 0, processGone(err)
	}
	adj, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		return 0, fmt.Errorf("parse oom_score_adj of %d: %w", pid, err)
	}
	return adj, nil
}

func (b scoreboard) write(pid, adj int) error {
	f, err := os.OpenFile(b.file(pid), os.O_WRONLY, 0)
	if err != nil {
		return processGone(err)
	}
	defer f.Close()
	_, err = f.WriteString(strconv.Itoa(adj))
	return processGone(err)
}

// exempt gives every process of a list the score that the kernel never picks, until
// no new one is found. rec knows the old scores before any is changed; save
// writes it.
func (b scoreboard) exempt(list func() ([]int, error), rec *Record, save func() error) error {
	done := map[int]bool{}
	for range scorePasses {
		fresh, err := b.note(list, rec, done)
		if err != nil || len(fresh) == 0 {
			return err
		}
		if err := save(); err != nil {
			return err
		}
		for _, pid := range fresh {
			if err := b.write(pid, scoreExempt); err != nil && !errors.Is(err, ErrGone) {
				return fmt.Errorf("guard process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// note lists the processes that are not done and not exempt, and takes
// their scores down in rec.
func (b scoreboard) note(list func() ([]int, error), rec *Record, done map[int]bool) (fresh []int, err error) {
	pids, err := list()
	if err != nil {
		return nil, err
	}
	first := rec.Scores == nil
	scores := map[int]int{}
	for _, pid := range pids {
		if done[pid] {
			continue
		}
		done[pid] = true
		adj, err := b.read(pid)
		if err != nil {
			continue // gone: whatever else it is, it cannot be written either
		}
		if adj != scoreExempt {
			fresh = append(fresh, pid)
			scores[pid] = adj
			if !first && adj < rec.Scores.of(b.proc, pid) && !b.placed(pid, rec.Scores.Since, pids) {
				// What is exempt may lower its score itself, and gains nothing.
				scores[pid] = rec.Scores.of(b.proc, pid)
			}
		} else if first {
			// Its own: an inherited one cannot be there before the first pass.
			scores[pid] = adj
		}
	}
	if rec.Scores == nil && len(scores) > 0 {
		rec.Scores = &ScoreRecord{Base: mostCommon(scores), Since: ticks()}
	}
	for pid, adj := range scores {
		if adj == rec.Scores.Base {
			continue
		}
		p, err := identify(b.proc, pid)
		if err == nil {
			rec.Scores.set(Score{Process: p, Adj: adj})
		}
	}
	return fresh, nil
}

// placed reports whether a process was started by somebody outside of the
// list, as a container runtime does, and later than since: then its score is
// what it was given, and it never was exempt.
func (b scoreboard) placed(pid int, since uint64, list []int) bool {
	st, err := readStat(b.proc, strconv.Itoa(pid))
	return err == nil && st.start > since && !slices.Contains(list, st.parent)
}

// ticks is the time since boot as /proc/PID/stat counts it, in hundredths of a
// second (USER_HZ).
func ticks() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return uint64(now.Nano()) / 1e7
}

// set adds or replaces an exception.
func (r *ScoreRecord) set(s Score) {
	for i := range r.Except {
		if r.Except[i].Process == s.Process {
			r.Except[i] = s
			return
		}
	}
	r.Except = append(r.Except, s)
}

// mostCommon is the score that most processes have; of equals, the lowest.
func mostCommon(scores map[int]int) int {
	count := map[int]int{}
	for _, adj := range scores {
		if adj != scoreExempt {
			count[adj]++
		}
	}
	best, found := 0, false
	for adj, n := range count {
		if !found || n > count[best] || n == count[best] && adj < best {
			best, found = adj, true
		}
	}
	return best
}

// restore gives every process of a list the score that rec says: its own, or
// for newcomers the base. It looks again until none is exempt, since a process
// may fork between the reading and the writing, or have forked and be gone.
// Where such come and go all the time, a row of passes without one is enough.
func (b scoreboard) restore(list func() ([]int, error), scores *ScoreRecord) error {
	done := map[int]bool{}
	calm := 0
	for range scorePasses {
		pids, err := list()
		if err != nil {
			return err
		}
		calm++
		gone := false
		for _, pid := range pids {
			adj, err := b.read(pid)
			if err != nil {
				gone = true
				continue
			}
			want := scores.of(b.proc, pid)
			if want == scoreExempt || done[pid] && adj != scoreExempt {
				continue
			}
			if adj == scoreExempt {
				calm = 0
			}
			done[pid] = true
			if err := b.putBack(pid, adj, want); err != nil && !errors.Is(err, ErrGone) {
				return fmt.Errorf("restore oom_score_adj of process %d: %w", pid, err)
			}
		}
		if calm > 0 && !gone {
			return nil
		}
	}
	if calm < scorePasses/2 {
		return errors.New("restore oom_score_adj: exempt processes keep appearing")
	}
	return nil
}

// putBack gives a process that was exempt, and reads adj, the score want. The
// kernel lets a process lower its own score down to what somebody with
// CAP_SYS_RESOURCE wrote last, which no file shows: so want is written even to
// a process that has given itself another score, which it keeps if it is
// higher.
func (b scoreboard) putBack(pid, adj, want int) error {
	if err := b.write(pid, want); err != nil || adj <= want {
		return err
	}
	return withoutResource(func() error { return b.write(pid, adj) })
}

// withoutResource runs f on a thread that lacks CAP_SYS_RESOURCE.
func withoutResource(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	with := data
	data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("drop CAP_SYS_RESOURCE: %w", err)
	}
	err := f()
	if back := unix.Capset(&hdr, &with[0]); back != nil {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		return errors.Join(err, fmt.Errorf("take CAP_SYS_RESOURCE again: %w", back))
	}
	return err
}

// of is the score that a process had or would have inherited.
func (r *ScoreRecord) of(proc string, pid int) int {
	i := slices.IndexFunc(r.Except, func(s Score) bool { return s.Pid == pid })
	if i >= 0 && r.Except[i].still(proc) {
		return r.Except[i].Adj
	}
	return r.Base
}
