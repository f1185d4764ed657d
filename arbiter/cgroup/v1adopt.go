package cgroup

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// limitWritten returns a callback for writes of a limit file of n.
func (n *node) limitWritten(name string) func(uint32, string) {
	return func(mask uint32, _ string) {
		overflow := mask&unix.IN_Q_OVERFLOW != 0
		if n.busy.Load() > 0 && !overflow {
			return // our own write
		}
		n.fs.watch.post(func() { go n.adopt(name, overflow) })
	}
}

// adopt makes a limit that somebody else wrote (runc update, an in-place
// resize, a systemd reload) the original one: what we lent is gone with the
// limit that it was added to. After an overflow of the notification queue only
// the value can tell whose it is.
func (n *node) adopt(name string, overflow bool) {
	if err := n.adoptLimit(name, overflow); err != nil && !errors.Is(err, ErrGone) {
		n.fs.log.Warn("adopt a foreign limit", "cgroup", n.dir.path, "error", err)
	}
	n.fs.watch.post(func() {
		for _, c := range n.membersOf(anyMember) {
			usage, _ := c.Usage()
			c.emit(Event{Kind: EventLimitChanged, At: time.Now(), Level: n.dir.path, Usage: usage,
				Why: "somebody else wrote " + name + " of " + n.dir.path})
		}
	})
}

func (n *node) adoptLimit(name string, overflow bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	shown, err := n.dir.limits()
	if err != nil {
		return err
	}
	value := strconv.FormatUint(shown.memory, 10)
	if name == fileMemsw {
		value = strconv.FormatUint(shown.memsw, 10)
	}
	if n.rec != nil && (!overflow || !n.rec.Fields[name].ours(value)) {
		delete(n.rec.Fields, name)
		if name == fileLimit {
			for _, s := range n.members {
				s.borrowed, s.granted = 0, 0
			}
			n.rec.Borrowed, n.rec.Granted = 0, 0
		}
		if err := n.save(); err != nil {
			return err
		}
	}
	return n.guardAgain(shown)
}

// guardAgain fits the guard to limits that changed: a cgroup that had none may
// have one now.
func (n *node) guardAgain(shown limits) error {
	hold := false
	for _, s := range n.members {
		hold = hold || s.hold
	}
	if !hold || !shown.any() {
		return nil
	}
	if err := n.claim(); err != nil {
		return err
	}
	n.setLadder(shown)
	return n.setFlag(false)
}
