package cgroup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A node is one version 1 directory that matters to one or more containers:
// their own, or an ancestor whose limit binds them. Containers of one pod
// share its node.
type node struct {
	ledger
	refs int // containers that keep it open; FS.mu

	// busy counts our own writers of the limit files, whose inotify events
	// are no news.
	busy atomic.Int32

	// members is changed with both mutexes held, so that one is enough to
	// read it. what a member asks for is guarded by ledger.mu. ledger.mu can
	// be held for long, while the kernel reclaims; seen only for moments.
	seen    sync.Mutex
	members map[*v1]*share

	// The rest is guarded by ledger.mu.
	oom    *eventfd // out-of-memory notification
	ladder *ladder  // usage thresholds below the limit
	// ladderFor is the limit that ladder is, or is going to be, for.
	ladderFor uint64
	watches   []int32 // inotify
	// handedOver says that the kernel is to decide at this limit for now.
	handedOver bool
}

// share is what one container asks of a node.
type share struct {
	hold              bool // wants the kernel not to kill
	borrowed, granted uint64
}

// openNode returns the node of path, opening it if need be. s.mu is held.
func (s *FS) openNode(p string) (*node, error) {
	if n := s.nodes[p]; n != nil && n.dir.alive() {
		n.refs++
		return n, nil
	}
	d, err := openDir(s.mounts.memory, p)
	if err != nil {
		return nil, err
	}
	d.keep(fileOOMControl, fileLimit, fileMemsw, fileUsage, fileStat)
	n := &node{ledger: ledger{fs: s, dir: d}, refs: 1, members: map[*v1]*share{}}
	s.nodes[p] = n
	return n, nil
}

// closeNode lets go of a node. s.mu is held.
func (s *FS) closeNode(n *node) {
	n.refs--
	if n.refs > 0 {
		return
	}
	if s.nodes[n.dir.path] == n {
		delete(s.nodes, n.dir.path)
	}
	n.dir.close()
}

// join makes c a member: its events are watched, and with hold the kernel is
// kept from killing if the node has a limit. above says that an ancestor's
// flag of ours was set when this directory may have been created.
func (n *node) join(c *v1, hold, above bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.member(c).hold = hold
	if err := n.watch(); err != nil {
		return err
	}
	if !hold {
		return nil
	}
	shown, err := n.dir.limits()
	if err != nil {
		return err
	}
	limited := shown.any()
	if !limited && n != c.self {
		return nil // it cannot be hit
	}
	if err := n.claim(); err != nil {
		return err
	}
	if !limited {
		return nil
	}
	n.setLadder(shown)
	return n.setFlag(above)
}

// member is what c asks for, nothing at first. n.mu is held.
func (n *node) member(c *v1) *share {
	n.seen.Lock()
	defer n.seen.Unlock()
	if n.members[c] == nil {
		n.members[c] = &share{}
	}
	return n.members[c]
}

// watch registers for everything the kernel tells about the directory. The
// out-of-memory eventfd fires for its own limit and for every ancestor's.
func (n *node) watch() error {
	if n.oom != nil {
		return nil
	}
	e, err := n.fs.newEventfd(n.dir, fileOOMControl, "", n.outOfMemory)
	if err != nil {
		return err
	}
	n.oom = e
	for _, w := range []struct {
		name string
		mask uint32
		f    func(uint32, string)
	}{
		{fileLimit, unix.IN_MODIFY, n.limitWritten(fileLimit)},
		{fileMemsw, unix.IN_MODIFY, n.limitWritten(fileMemsw)},
		{".", unix.IN_CREATE | unix.IN_ONLYDIR, func(uint32, string) { n.fs.watch.post(n.sweep) }},
	} {
		if w.name == fileMemsw && !n.dir.has(fileMemsw) {
			continue
		}
		wd, err := n.fs.watch.notify(n.dir, w.name, w.mask, w.f)
		if err != nil {
			n.unwatch()
			return err
		}
		n.watches = append(n.watches, wd)
	}
	return nil
}

func (n *node) unwatch() {
	n.oom.close()
	n.ladderFor = 0
	n.ladder.close()
	for _, wd := range n.watches {
		n.fs.watch.unnotify(wd)
	}
	n.oom, n.ladder, n.watches = nil, nil, nil
}

// leave ends c's membership. Where others stay, only its room is taken back;
// the last one undoes everything but what undoLate has to wait for.
func (n *node) leave(c *v1) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy.Add(1)
	defer n.busy.Add(-1)
	defer n.fs.watch.settle()
	n.seen.Lock()
	delete(n.members, c)
	n.seen.Unlock()
	var err error
	switch {
	case n.rec == nil:
	case n.needed():
		err = n.applyShares()
		if errors.Is(err, ErrUsage) {
			err = nil // as low as usage allows; the next change tries again
		}
	default:
		var left []string
		left, err = n.fs.undo(n.dir, n.rec, false)
		n.report(left)
	}
	if len(n.members) == 0 {
		n.unwatch()
	}
	return ignoreGone(err)
}

// finish ends what leave began, once the tasks run again: borrowed room that
// did not fit, inherited flags, and the record.
func (n *node) finish(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rec == nil || n.needed() {
		return nil
	}
	n.busy.Add(1)
	defer n.busy.Add(-1)
	defer n.fs.watch.settle()
	err := n.sweepLocked()
	left, late := n.fs.undoLate(ctx, n.dir, n.rec)
	n.report(left)
	if late == nil && len(n.rec.Fields) > 0 {
		late = fmt.Errorf("disarm %s: %w", n.dir.path, ErrUsage)
	}
	return errors.Join(ignoreGone(err), ignoreGone(late), n.drop())
}

// needed reports whether a member still wants the guard, or has room from
// here. n.mu is held.
func (n *node) needed() bool {
	for _, m := range n.members {
		if m.hold || m.borrowed+m.granted > 0 {
			return true
		}
	}
	return false
}

// limited reports whether n has a limit that could be hit.
func (n *node) limited() bool {
	shown, err := n.dir.limits()
	return err == nil && shown.any()
}

func (n *node) report(left []string) {
	for _, l := range left {
		n.fs.log.Warn("left as it is", "cgroup", n.dir.path, "why", l)
	}
}
