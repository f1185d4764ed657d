package cgroup

import (
	"fmt"
	"path"
	"slices"
	"time"
)

// A child is created with its parent's out-of-memory flag. Below an armed
// cgroup that makes it block for ever at its own limit, with nobody watching:
// so the flag of every new child is cleared, and of every child once more
// before the parent's record goes.

// setFlag keeps the kernel from killing at this node's limit: an allocation
// that cannot be charged sleeps instead.
func (n *node) setFlag(above bool) error {
	n.fs.flags.Lock()
	defer n.fs.flags.Unlock()
	if n.rec.Fields[fileOOMControl] != nil {
		return nil
	}
	c, err := n.dir.oomControl()
	if err != nil {
		return err
	}
	n.rec.intend(fileOOMControl, flagValue(c.killDisabled && !above), "1")
	if !c.killDisabled || above {
		n.rec.Inherited = true
		if n.rec.Flagged, err = n.flaggedBelow(); err != nil {
			return err
		}
	}
	if err := n.save(); err != nil {
		return err
	}
	if err := n.dir.write(fileOOMControl, "1"); err != nil {
		return err
	}
	n.fs.changed("flag set", n.dir.path)
	n.fs.watch.post(n.sweep) // a child may have been created before the watch saw it
	return nil
}

// flaggedMost bounds Record.Flagged: nobody has that many containers with
// docker's --oom-kill-disable under one ancestor, and an xattr is small.
const flaggedMost = 200

// flaggedBelow lists descendants whose flag somebody else has set already.
func (n *node) flaggedBelow() ([]string, error) {
	var flagged []string
	err := n.dir.walk(func(d *dir) error {
		if d.path == n.dir.path {
			return nil
		}
		c, err := d.oomControl()
		if err != nil || !c.killDisabled {
			return ignoreGone(err)
		}
		if rec, err := d.record(); err != nil || rec != nil {
			return ignoreGone(err) // ours or another daemon's, with a record of its own
		}
		flagged = append(flagged, relative(n.dir.path, d.path))
		return nil
	})
	if len(flagged) > flaggedMost {
		err = fmt.Errorf("arm %s: %d cgroups below have memory.oom_control set", n.dir.path, len(flagged))
	}
	return flagged, err
}

// busyRetry is when the watching goroutine, which must not wait, comes back to
// a node that somebody is changing.
const busyRetry = 5 * time.Millisecond

// sweep clears the flag that children created below an armed node inherited.
// They have no record; left alone they would block for ever at their own limit.
func (n *node) sweep() {
	if !n.mu.TryLock() {
		n.fs.watch.after(busyRetry, n.sweep)
		return
	}
	defer n.mu.Unlock()
	if err := n.sweepLocked(); err != nil {
		n.fs.log.Warn("clear inherited out-of-memory flags", "cgroup", n.dir.path, "error", err)
	}
}

func (n *node) sweepLocked() error {
	if n.rec == nil || !n.rec.Inherited {
		return nil
	}
	var keep []string
	for _, rel := range n.rec.Flagged {
		keep = append(keep, path.Join(n.dir.path, rel))
	}
	return n.dir.walk(func(d *dir) error {
		if d.path == n.dir.path || slices.Contains(keep, d.path) {
			return nil
		}
		return ignoreGone(n.fs.clearUnrecorded(d))
	})
}

// clearUnrecorded clears the flag of a directory that has no record.
func (s *FS) clearUnrecorded(d *dir) error {
	s.flags.Lock()
	defer s.flags.Unlock()
	if rec, err := d.record(); err != nil || rec != nil {
		return err
	}
	_, err := s.clearInherited(d)
	return err
}
