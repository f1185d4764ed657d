package cgroup

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/arbiterd/arbiter/policy"
)

// v1 is a container's cgroup in the version 1 memory hierarchy.
type v1 struct {
	fs    *FS
	path  string
	self  *node
	chain []*node // self first, then every ancestor but the root

	// turn serializes what changes the kernel's state. A channel, since
	// whoever waits for it has a context.
	turn chan struct{}

	// stopping is set from the first step of a hold to the thaw: until then
	// out-of-memory events are the echo of our own nudges.
	stopping atomic.Bool

	mu     sync.Mutex // guards the rest, for moments
	opts   ArmOptions
	armed  bool
	closed bool
	status Status
	gate   *gate   // the freezer's directory while armed, if it is one
	wds    []int32 // inotify watches of the freezer's state and of cgroup.procs
	leader int     // pidfd of one of the processes; -1 for none
	oomed  uint64  // oom_kill of the subtree as last seen
	mark   uint64  // usage when last looked at, to tell who grows
	hit    *node   // whose limit was hit last

	// writing is set while we change the freezer ourselves, and freezes counts
	// how often we did.
	writing atomic.Bool
	freezes atomic.Uint64
}

var _ Cgroup = (*v1)(nil)

// newV1 opens path and its ancestors. s.mu is held.
func newV1(s *FS, p string) (*v1, error) {
	chain, err := openChain(p, s.openNode, s.closeNode)
	if err != nil {
		return nil, err
	}
	return &v1{fs: s, path: p, turn: make(chan struct{}, 1), status: Status{State: Unarmed}, leader: -1, chain: chain, self: chain[0]}, nil
}

func (c *v1) Path() string { return c.path }

func (c *v1) ID() uint64 { return c.self.dir.ino }

func (c *v1) Pids() ([]int, error) { return c.self.dir.pids() }

func (c *v1) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.status
	st.Missing = slices.Clone(st.Missing)
	return st
}

// take waits for c's turn. The operation calls end when it is done.
func (c *v1) take(ctx context.Context, op string) (end func(), err error) {
	select {
	case c.turn <- struct{}{}:
		return func() { <-c.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s %s: %w", op, c.path, ctx.Err())
	}
}

// begin is take for operations on a directory that must still exist.
func (c *v1) begin(ctx context.Context, op string) (end func(), err error) {
	end, err = c.take(ctx, op)
	if err == nil && !c.self.dir.alive() {
		end()
		return nil, fmt.Errorf("%s %s: %w", op, c.path, ErrGone)
	}
	return end, err
}

// Usage reads the present figures. Version 1 tells nothing about slab, so all
// kernel memory counts as unreclaimable.
func (c *v1) Usage() (Usage, error) {
	d := c.self.dir
	current, err := d.number(fileUsage)
	if err != nil {
		return Usage{}, err
	}
	stat, err := d.memoryStat()
	if err != nil {
		return Usage{}, err
	}
	peak, err := d.number(filePeak)
	if err != nil {
		return Usage{}, err
	}
	cache := stat.activeFile + stat.inactiveFile
	u := Usage{Current: current, Unreclaimable: current - min(cache, current), Swap: stat.swap, Peak: peak}
	return u, c.limitsInto(&u)
}

// limitsInto fills in the limits that bind c. The innermost of equal ones is
// named: it is the container's own in a one-container pod.
func (c *v1) limitsInto(u *Usage) error {
	for _, n := range c.chain {
		if !n.dir.has(fileLimit) {
			continue // the root has none
		}
		shown, err := n.dir.limits()
		if err != nil {
			return err
		}
		limit, base := limitOf(shown.memory), limitOf(n.original(shown).memory)
		if n == c.self {
			u.OwnLimit = limit
		}
		if limit.Less(u.Limit) {
			u.Limit, u.LimitCgroup = limit, n.dir.path
		}
		if base.Less(u.BaseLimit) {
			u.BaseLimit = base
		}
	}
	return nil
}

// original is shown without what we lent or nudged.
func (n *node) original(shown limits) limits {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rec == nil {
		return shown
	}
	return n.rec.originalLimits(shown)
}

// Counters sums over the subtree: version 1 counts a kill only where the
// victim was, and no out-of-memory events at all.
func (c *v1) Counters() (Counters, error) {
	var sum Counters
	err := c.self.dir.walk(func(d *dir) error {
		o, err := d.oomControl()
		sum.OOMKill += o.oomKill
		return ignoreGone(err)
	})
	if err == nil && !c.self.dir.alive() {
		err = fmt.Errorf("read counters of %s: %w", c.path, ErrGone)
	}
	return sum, err
}

// Guarded runs f: on version 1 a foreign charge to a frozen cgroup sleeps or
// fails, but nothing is killed while the flag is set.
func (c *v1) Guarded(_ context.Context, f func() error) error { return f() }

// Close disarms and lets go of the descriptors.
func (c *v1) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	err := ignoreGone(c.Disarm(ctx))
	c.fs.forget(c)
	c.fs.mu.Lock()
	defer c.fs.mu.Unlock()
	for _, n := range c.chain {
		c.fs.closeNode(n)
	}
	return err
}

// limited reports whether any limit binds c.
func (c *v1) limited() bool {
	var u Usage
	err := c.limitsInto(&u)
	return err == nil && u.Limit != policy.NoLimit
}
