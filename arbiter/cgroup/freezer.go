package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// freezerKind is one of the ways to stop all tasks of a memory cgroup, best
// first. On version 1 the memory cgroup itself says nothing about freezing.
type freezerKind string

const (
	freezeV1   freezerKind = "freezer"       // a v1 freezer cgroup with exactly these processes
	freezeV2   freezerKind = "cgroup.freeze" // a cgroup2 directory, of v2 or of a hybrid tree
	freezeOwn  freezerKind = "own freezer"   // a v1 freezer cgroup that we made for the hold
	freezeStop freezerKind = "SIGSTOP"       // the last resort: visible to the processes' parent
)

// leavePasses bounds how often leaveOwnFreezer looks for what was born meanwhile.
const leavePasses = 100

// A gate is one directory whose tasks the kernel freezes together.
type gate struct {
	kind freezerKind // freezeV1, freezeOwn or freezeV2
	dir  *dir        // in the freezer's own hierarchy
}

// request asks the kernel to freeze or to thaw. It returns at once.
func (g gate) request(freeze bool) error {
	switch {
	case g.kind == freezeV2 && freeze:
		return g.dir.write("cgroup.freeze", "1")
	case g.kind == freezeV2:
		return g.dir.write("cgroup.freeze", "0")
	case freeze:
		return g.dir.write("freezer.state", "FROZEN")
	default:
		return g.dir.write("freezer.state", "THAWED")
	}
}

// requested reports whether somebody, perhaps we, asked for this directory to
// be frozen. Frozen ancestors do not count.
func (g gate) requested() (bool, error) {
	name := "freezer.self_freezing"
	if g.kind == freezeV2 {
		name = "cgroup.freeze"
	}
	v, err := g.dir.value(name)
	return v == "1", err
}

// frozen reports whether every task stands still.
func (g gate) frozen() (bool, error) {
	if g.kind == freezeV2 {
		b, err := g.dir.read("cgroup.events")
		if err != nil {
			return false, err
		}
		return parseFrozen(b), nil
	}
	// FREEZING means that a task is still asleep where it cannot be frozen.
	v, err := g.dir.value("freezer.state")
	return v == "FROZEN", err
}

// parseFrozen reads the key "frozen" of cgroup.events:
//
//	populated 1
//	frozen 0
func parseFrozen(b []byte) bool {
	for line := range bytes.Lines(b) {
		if string(bytes.TrimSpace(line)) == "frozen 1" {
			return true
		}
	}
	return false
}

// letGo undoes a freeze from its record alone: the daemon that made it may be
// dead. It touches only what still is as the record says.
func (s *FS) letGo(r *FreezeRecord) error {
	switch r.Kind {
	case freezeStop:
		return s.continueStopped(r.Stopped)
	case freezeOwn:
		return s.leaveOwnFreezer(r)
	}
	if r.Foreign {
		return nil
	}
	g, err := s.openGate(r.Kind, r.Path)
	if err != nil {
		return ignoreGone(err)
	}
	defer g.dir.close()
	if g.dir.ino != r.Inode {
		return nil
	}
	if asked, err := g.requested(); err != nil || !asked {
		return ignoreGone(err)
	}
	return ignoreGone(g.request(false))
}

// openGate opens a freezing directory of the hierarchy that kind belongs to.
func (s *FS) openGate(kind freezerKind, path string) (gate, error) {
	mount := s.mounts.freezer
	if kind == freezeV2 {
		mount = s.mounts.unified
	}
	if mount == "" {
		return gate{}, fmt.Errorf("open freezer %s: %w", path, ErrNotSupported)
	}
	d, err := openDir(mount, path)
	return gate{kind, d}, err
}

// continueStopped sends SIGCONT to those of the processes that still are the
// same and still are stopped.
func (s *FS) continueStopped(stopped []Process) error {
	var errs []error
	for _, p := range stopped {
		fd, err := unix.PidfdOpen(p.Pid, 0)
		if err != nil {
			continue // gone
		}
		if p.still(s.proc) {
			err = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("send SIGCONT to %d: %w", p.Pid, err))
			}
		}
		_ = unix.Close(fd)
	}
	return errors.Join(errs...)
}

// leaveOwnFreezer moves every process of a freezer cgroup of ours back to where
// it came from, and removes the cgroup. A frozen process that enters a thawed
// cgroup runs again, so nothing is thawed before it is home, and nothing forks
// meanwhile. A process that was born inside goes to where most came from.
func (s *FS) leaveOwnFreezer(r *FreezeRecord) error {
	g, err := s.openGate(freezeOwn, r.Path)
	if err != nil {
		return ignoreGone(err)
	}
	defer g.dir.close()
	origin := map[int]Moved{}
	for _, m := range r.Moved {
		origin[m.Pid] = m
	}
	for range leavePasses {
		pids, err := g.dir.ownPids()
		if err != nil {
			return ignoreGone(err)
		}
		if len(pids) == 0 {
			return s.removeOwnFreezer(r.Path)
		}
		for _, pid := range pids {
			to := r.Origin
			if m, ok := origin[pid]; ok && m.still(s.proc) {
				to = m.From
			}
			if err := s.moveFreezer(pid, to); err != nil {
				return errors.Join(err, g.request(false))
			}
		}
	}
	return errors.Join(fmt.Errorf("leave freezer %s: processes keep appearing", r.Path), g.request(false))
}

// removeOwnFreezer removes an emptied freezer cgroup.
func (s *FS) removeOwnFreezer(path string) error {
	err := unix.Rmdir(s.mounts.freezer + path)
	if err != nil && !isGone(err) {
		return fmt.Errorf("remove freezer %s: %w", path, err)
	}
	return nil
}

// moveFreezer puts a process into a freezer cgroup, or into the root if that
// is gone. A process that exited meanwhile is no error.
func (s *FS) moveFreezer(pid int, to string) error {
	for _, path := range []string{to, "/"} {
		d, err := openDir(s.mounts.freezer, path)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		err = d.write("cgroup.procs", fmt.Sprint(pid))
		d.close()
		if err == nil || errors.Is(err, unix.ESRCH) {
			return nil
		}
		if !errors.Is(err, ErrGone) {
			return err
		}
	}
	return fmt.Errorf("move process %d to freezer %s: %w", pid, to, ErrGone)
}

// describe names the freezer as Status.Freezer shows it.
func (r *FreezeRecord) describe() string {
	if r.Kind == freezeV1 {
		return strings.TrimSpace(string(r.Kind) + " " + r.Path)
	}
	return string(r.Kind)
}
