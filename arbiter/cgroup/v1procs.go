package cgroup

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Version 1 does not tell when the last process left. So one process of the
// container, its leader, is watched by a pidfd; when it exits, the next one
// becomes the leader, until there is none. That is one descriptor for each
// container and a wake-up only when its oldest process ends.

// watchProcesses watches the leader, processes that somebody moves in, and
// the freezer that holds them.
func (c *v1) watchProcesses() {
	c.watchLeader()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wds) > 0 {
		return
	}
	wd, err := c.fs.watch.notify(c.self.dir, "cgroup.procs", unix.IN_MODIFY, func(uint32, string) {
		c.fs.watch.post(func() { c.watchLeader() })
	})
	if err == nil {
		c.wds = append(c.wds, wd)
	}
	r, err := c.pickFreezer()
	if err != nil || r.Kind != freezeV1 && r.Kind != freezeV2 {
		return
	}
	g, err := c.fs.openGate(r.Kind, r.Path)
	if err != nil {
		return
	}
	g.dir.keep(g.files()...)
	c.gate = &g
	wd, err = c.fs.watch.notify(g.dir, g.files()[0], unix.IN_MODIFY, c.freezerWritten)
	if err == nil {
		c.wds = append(c.wds, wd)
	}
}

// files are the gate's control file and the ones that its state is read from.
func (g gate) files() []string {
	if g.kind == freezeV2 {
		return []string{"cgroup.freeze", "cgroup.events"}
	}
	return []string{"freezer.state", "freezer.self_freezing"}
}

func (c *v1) unwatchProcesses() {
	c.mu.Lock()
	wds, g, fd := c.wds, c.gate, c.leader
	c.wds, c.gate, c.leader = nil, nil, -1
	c.mu.Unlock()
	for _, wd := range wds {
		c.fs.watch.unnotify(wd)
	}
	if g != nil {
		g.dir.close()
	}
	if fd >= 0 {
		c.fs.watch.remove(fd)
		_ = unix.Close(fd)
	}
}

// watchLeader makes the oldest process the leader, if there is none yet. It
// reports whether there is one now.
func (c *v1) watchLeader() bool {
	pids, err := c.Pids()
	if err != nil {
		return false
	}
	slices.Sort(pids)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader >= 0 || !c.armed {
		return true
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone meanwhile
		}
		if c.fs.watch.add(fd, unix.EPOLLIN, func() { c.leaderExited(fd) }) != nil {
			_ = unix.Close(fd)
			return false
		}
		c.leader = fd
		return true
	}
	return false
}

// leaderExited looks what the leader's end means: the kernel may have killed
// it, and it may have been the last.
func (c *v1) leaderExited(fd int) {
	c.mu.Lock()
	mine := c.leader == fd
	if mine {
		c.leader = -1
	}
	hold := c.opts.Hold
	c.mu.Unlock()
	if !mine {
		return
	}
	c.fs.watch.remove(fd)
	_ = unix.Close(fd)
	if hold {
		c.lookForEscape(time.Now())
	}
	// A process that is being reaped may still be listed; do not spin on it.
	c.fs.watch.after(leaderPause, c.nextLeader)
}

// nextLeader finds a new leader, or tells that nobody is left.
func (c *v1) nextLeader() {
	pids, err := c.Pids()
	switch {
	case err != nil: // gone: the eventfd tells
	case len(pids) == 0:
		c.emit(Event{Kind: EventEmpty, At: time.Now(), Why: "the last process left"})
	case !c.watchLeader():
		c.fs.watch.after(leaderPause, c.nextLeader)
	}
}

// leaderPause is when the next leader is chosen.
const leaderPause = 5 * time.Millisecond

// quietly runs f, which writes the freezer's state, so that nobody takes that
// for a stranger's doing. What a stranger did before is overtaken: f looks at
// the freezer itself.
func (c *v1) quietly(f func() error) error {
	c.freezes.Add(1)
	c.writing.Store(true)
	defer c.writing.Store(false)
	defer c.fs.watch.settle()
	return f()
}

// freezerWritten runs when somebody wrote the freezer's state. The container
// runtime pauses and resumes behind our back.
func (c *v1) freezerWritten(mask uint32, _ string) {
	lost := mask&unix.IN_Q_OVERFLOW != 0
	if c.writing.Load() && !lost {
		return
	}
	turn := c.freezes.Load()
	c.fs.watch.post(func() { c.freezerChanged(turn, lost) })
}

// freezerChanged tells of a stranger's freeze or thaw, unless we have changed
// the freezer ourselves since.
func (c *v1) freezerChanged(turn uint64, lost bool) {
	c.mu.Lock()
	g := c.gate
	c.mu.Unlock()
	if g == nil {
		return
	}
	if !c.self.mu.TryLock() {
		c.fs.watch.after(busyRetry, func() { c.freezerChanged(turn, lost) })
		return
	}
	defer c.self.mu.Unlock()
	if c.freezes.Load() != turn {
		return
	}
	// Whoever freezes or thaws here saves the record first, under this lock.
	asked, err := g.requested()
	if err != nil || lost && (asked || !c.stopping.Load()) {
		return
	}
	why, err := c.noteForeign(asked)
	if err != nil {
		c.fs.log.Warn("record a foreign freezer change", "cgroup", c.path, "error", err)
	}
	c.emit(Event{Kind: EventFreezerChanged, At: time.Now(), Why: why})
}

// noteForeign takes a stranger's freeze or thaw into the record. A freeze on
// top of ours stays when ours ends; a thaw ends ours. Where notifications were
// lost, a freeze may be our own, but a thaw is not. c.self.mu is held.
func (c *v1) noteForeign(asked bool) (why string, err error) {
	rec := c.self.rec
	held := rec != nil && rec.Freeze != nil
	switch {
	case held && asked:
		rec.Freeze.Foreign = true
		return "somebody else froze it while it was held", c.self.save()
	case held:
		rec.Freeze = nil
		c.stopping.Store(false)
		c.setState(Armed)
		return "somebody else thawed it while it was held", c.self.save()
	case asked:
		return "somebody else froze it", nil
	default:
		return "somebody else thawed it", nil
	}
}
