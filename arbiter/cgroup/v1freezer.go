package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// pickFreezer chooses how to stop exactly the processes of c: an existing
// freezer cgroup of theirs, the hybrid tree's cgroup.freeze, a freezer cgroup
// of our own, SIGSTOP. Where nothing runs yet, the paths decide.
func (c *v1) pickFreezer() (FreezeRecord, error) {
	pids, err := c.Pids()
	if err != nil {
		return FreezeRecord{Kind: freezeStop}, err
	}
	at := membership{freezer: c.path, unified: c.path}
	if len(pids) > 0 {
		for _, pid := range pids {
			if at, err = readMembership(c.fs.proc, pid); err == nil {
				break
			}
		}
	}
	for _, try := range []struct {
		kind freezerKind
		path string
	}{{freezeV1, at.freezer}, {freezeV2, at.unified}} {
		if try.path == "" || try.path == "/" {
			continue // the root cannot be frozen
		}
		g, err := c.fs.openGate(try.kind, try.path)
		if err != nil {
			continue
		}
		exact := c.exactly(g, pids)
		g.dir.close()
		if exact {
			return FreezeRecord{Kind: try.kind, Path: try.path, Inode: g.dir.ino}, nil
		}
	}
	if c.fs.mounts.freezer != "" {
		return FreezeRecord{Kind: freezeOwn, Path: "/arbiter-hold-" + strconv.FormatUint(c.ID(), 10)}, nil
	}
	return FreezeRecord{Kind: freezeStop}, nil
}

// exactly reports whether a freezing directory holds the processes of c and no
// others. The two lists are not read at the same moment, so a process that is
// in one of them only is asked itself.
func (c *v1) exactly(g gate, pids []int) bool {
	if !g.dir.has("freezer.state") && !g.dir.has("cgroup.freeze") {
		return false
	}
	there, err := g.dir.pids()
	if err != nil {
		return false
	}
	in := make(map[int]bool, len(there))
	for _, pid := range there {
		in[pid] = true
	}
	for _, pid := range pids {
		if in[pid] {
			delete(in, pid)
			continue
		}
		m, err := readMembership(c.fs.proc, pid)
		if err == nil && !within(g.of(m), g.dir.path) {
			return false
		}
	}
	for pid := range in {
		m, err := readMembership(c.fs.proc, pid)
		if err == nil && !within(m.memory, c.path) {
			return false
		}
	}
	return true
}

// of is where a process is in the gate's hierarchy.
func (g gate) of(m membership) string {
	if g.kind == freezeV2 {
		return m.unified
	}
	return m.freezer
}

// enterOwnFreezer makes the freezer cgroup of r, frozen, and moves every
// process of c into it, until a look finds no new one. r is saved before.
func (c *v1) enterOwnFreezer(ctx context.Context, r *FreezeRecord) (gate, error) {
	if err := c.noteOrigins(r); err != nil {
		return gate{}, err
	}
	if err := c.saveFreeze(r); err != nil {
		return gate{}, err
	}
	err := unix.Mkdir(c.fs.mounts.freezer+r.Path, 0o755)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return gate{}, fmt.Errorf("make freezer %s: %w", r.Path, err)
	}
	g, err := c.fs.openGate(freezeOwn, r.Path)
	if err != nil {
		return gate{}, err
	}
	if err := g.request(true); err != nil {
		g.dir.close()
		return gate{}, err
	}
	for ctx.Err() == nil {
		moved, err := c.moveInto(g, r)
		if err != nil {
			g.dir.close()
			return gate{}, err
		}
		if moved == 0 {
			return g, nil
		}
	}
	g.dir.close()
	return gate{}, ctx.Err()
}

// moveInto moves those processes into g that are not there, and counts them.
func (c *v1) moveInto(g gate, r *FreezeRecord) (moved int, err error) {
	pids, err := c.Pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		m, err := readMembership(c.fs.proc, pid)
		if err != nil || m.freezer == r.Path {
			continue
		}
		if m.freezer != r.Origin && !r.knows(pid) {
			// Born meanwhile, elsewhere: on the record before it moves.
			if p, err := identify(c.fs.proc, pid); err == nil {
				r.Moved = append(r.Moved, Moved{p, m.freezer})
				if err := c.saveFreeze(r); err != nil {
					return moved, err
				}
			}
		}
		err = g.dir.write("cgroup.procs", strconv.Itoa(pid))
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return moved, err
		}
		moved++
	}
	return moved, nil
}

// noteOrigins notes in r where the processes of c are: most of them as one
// path, the others by name.
func (c *v1) noteOrigins(r *FreezeRecord) error {
	pids, err := c.Pids()
	if err != nil {
		return err
	}
	r.Origin = "/"
	for i, pid := range pids {
		m, err := readMembership(c.fs.proc, pid)
		if err != nil {
			continue
		}
		if i == 0 {
			r.Origin = m.freezer
		}
		if m.freezer == r.Origin || m.freezer == r.Path {
			continue
		}
		if p, err := identify(c.fs.proc, pid); err == nil {
			r.Moved = append(r.Moved, Moved{p, m.freezer})
		}
	}
	return nil
}

func (r *FreezeRecord) knows(pid int) bool {
	for _, m := range r.Moved {
		if m.Pid == pid {
			return true
		}
	}
	return false
}

// stopProcesses sends SIGSTOP to every process of c that is not on r already,
// and counts them. Stopped processes of others are left out: they stay so.
func (c *v1) stopProcesses(r *FreezeRecord) (fresh int, err error) {
	pids, err := c.Pids()
	if err != nil {
		return 0, err
	}
	var news []int
	for _, pid := range pids {
		st, err := readStat(c.fs.proc, strconv.Itoa(pid))
		if err != nil || st.state == 'T' || st.state == 'Z' || r.stopped(pid) {
			continue
		}
		r.Stopped = append(r.Stopped, Process{pid, st.start})
		news = append(news, pid)
	}
	if len(news) == 0 {
		return 0, nil
	}
	if err := c.saveFreeze(r); err != nil {
		return 0, err
	}
	for _, pid := range news {
		if err := c.signal(pid, unix.SIGSTOP); err != nil {
			return 0, err
		}
	}
	return len(news), nil
}

func (r *FreezeRecord) stopped(pid int) bool {
	for _, p := range r.Stopped {
		if p.Pid == pid {
			return true
		}
	}
	return false
}

// allStopped reports whether every thread of c stands still.
func (c *v1) allStopped() (bool, error) {
	pids, err := c.Pids()
	if err != nil {
		return false, err
	}
	for _, pid := range pids {
		for _, tid := range threads(c.fs.proc, pid) {
			st, err := readStat(c.fs.proc, fmt.Sprintf("%d/task/%d", pid, tid))
			if err == nil && st.state != 'T' && st.state != 't' && st.state != 'Z' && st.state != 'X' {
				return false, nil
			}
		}
	}
	return true, nil
}

// signal sends sig to a process if it still belongs to c: a pid may have been
// given to another process since it was read.
func (c *v1) signal(pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if m, err := readMembership(c.fs.proc, pid); err != nil || !within(m.memory, c.path) {
		return ignoreGone(err)
	}
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to %d: %w", sig, pid, err)
	}
	return nil
}

// freezeWait bounds a freeze where the context does not: a task that sleeps
// elsewhere in the kernel (a dead NFS server) never freezes, and a freezer left
// in FREEZING makes runc spin.
const freezeWait = 2 * time.Second
