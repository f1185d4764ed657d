package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	epollPri = unix.EPOLLPRI
	// oomToKill is how old the count of a limit that was hit may be to be the
	// cause of a kill: the kernel counts both within one charge.
	oomToKill = time.Second
)

// v2 is a container's cgroup in the version 2 hierarchy.
type v2 struct {
	fs    *FS
	path  string
	self  *level
	chain []*level // self first, then every ancestor but the root

	turn    chan struct{} // serializes what changes the kernel's state
	quiet   atomic.Bool   // stopping, stopped or killed: limit events are an echo
	killing atomic.Bool

	wantFrozen atomic.Bool // what cgroup.freeze should say

	mu      sync.Mutex // guards the rest, for moments
	opts    ArmOptions
	armed   bool
	closed  bool
	held    bool
	missing []string
	kills   uint64
	lent    Status   // Borrowed and Granted only
	events  *os.File // cgroup.events, in the watch
	last    cgroupEvents
}

var _ Cgroup = (*v2)(nil)

// newV2 opens path and its ancestors. s.mu is held.
func newV2(s *FS, p string) (*v2, error) {
	chain, err := openChain(p, s.openLevel, s.closeLevel)
	if err != nil {
		return nil, err
	}
	return &v2{fs: s, path: p, turn: make(chan struct{}, 1), chain: chain, self: chain[0]}, nil
}

func (c *v2) Path() string { return c.path }

func (c *v2) ID() uint64 { return c.self.dir.ino }

func (c *v2) Pids() ([]int, error) { return c.self.dir.pids() }

// begin waits for c's turn. The operation calls end when it is done.
func (c *v2) begin(ctx context.Context, op string) (end func(), err error) {
	select {
	case c.turn <- struct{}{}: // first: what is done already needs no time
	default:
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s %s: %w", op, c.path, ctx.Err())
		}
	}
	if !c.self.dir.alive() {
		<-c.turn
		return nil, fmt.Errorf("%s %s: %w", op, c.path, ErrGone)
	}
	return func() { <-c.turn }, nil
}

// Usage reads the present figures.
func (c *v2) Usage() (Usage, error) {
	d := c.self.dir
	current, err := d.number(fileCurrent)
	if err != nil {
		return Usage{}, err
	}
	b, err := d.read(fileStat)
	if err != nil {
		return Usage{}, err
	}
	cache, err := parseReclaimable(b)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Current: current, Unreclaimable: current - min(cache, current)}
	if u.Swap, err = d.numberOr0(fileSwapCurrent); err != nil {
		return Usage{}, err
	}
	if u.Peak, err = d.numberOr0(fileMemoryPeak); err != nil {
		return Usage{}, err
	}
	return u, c.limitsInto(&u)
}

// numberOr0 is number for a file that not every kernel has.
func (d *dir) numberOr0(name string) (uint64, error) {
	n, err := d.number(name)
	if errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrGone) {
		return 0, nil
	}
	return n, err
}

// limitsInto fills in the limits that bind c. The innermost of equal ones is
// named.
func (c *v2) limitsInto(u *Usage) error {
	for _, l := range c.chain {
		if !l.dir.has(fileMax) {
			continue // the root, or a directory without the memory controller
		}
		shown, err := l.readLimit(fileMax)
		if err != nil {
			return err
		}
		base := l.base(shown.String())
		if l == c.self {
			u.OwnLimit = shown
		}
		if shown.Less(u.Limit) {
			u.Limit, u.LimitCgroup = shown, l.dir.path
		}
		if base.Less(u.BaseLimit) {
			u.BaseLimit = base
		}
	}
	return nil
}

// Counters reads memory.events, which the kernel sums over the subtree.
func (c *v2) Counters() (Counters, error) {
	b, err := c.self.dir.read(fileMemEvents)
	if err != nil {
		return Counters{}, err
	}
	e, err := parseMemoryEvents(b)
	return Counters{OOM: e.oom, OOMKill: e.oomKill}, err
}

// Status is the guard's present state.
func (c *v2) Status() Status {
	guarded := false
	for _, l := range c.chain {
		guarded = guarded || l.up.Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.lent
	st.Missing = slices.Clone(c.missing)
	switch {
	case c.held:
		st.State = HeldNow
	case !c.armed:
		st.State = Unarmed
	case !c.opts.Hold:
		st.State = Watched
	case guarded:
		st.State = Guarded
	case len(st.Missing) > 0:
		st.State = Partial
	default:
		st.State = Armed
	}
	if c.opts.Hold || c.held {
		st.Freezer = fileFreeze
	}
	return st
}

// Close disarms and lets go of the descriptors.
func (c *v2) Close() error {
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
	for _, l := range c.chain {
		c.fs.closeLevel(l)
	}
	return err
}

// wantsLimits reports whether c is to be held at its limit, and a limit event
// is no echo of our own doing.
func (c *v2) wantsLimits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opts.Hold && !c.quiet.Load()
}

// observed tells a c that only observes of the limit for which the kernel has
// just killed in it: usage has dropped by then. It runs on the watching
// goroutine. The kernel counts the kill in the victim's cgroup and the cause
// where the limit is; the node's own out-of-memory kills have none there.
func (c *v2) observed(now time.Time) {
	c.mu.Lock()
	observes := c.opts.Observe && !c.opts.Hold
	c.mu.Unlock()
	if !observes {
		return
	}
	for _, l := range c.bound() {
		l.notified() // the notices come in any order
		if now.Sub(l.lastOOM) < oomToKill {
			c.fs.emit(Event{Kind: EventLimit, Cgroup: c, At: now, Level: l.dir.path, Why: "the kernel killed at the limit"})
			return
		}
	}
}

// emitLimit hands on an event of a limit, if it is wanted, from any goroutine.
func (c *v2) emitLimit(e Event) {
	if c.wantsLimits() {
		e.Cgroup = c
		c.fs.emitSoon(e)
	}
}

// emitSoon hands an event to the receiver from any goroutine.
func (s *FS) emitSoon(e Event) { s.watch.post(func() { s.emit(e) }) }

// countKills tells of kernel kills in spite of the guard.
func (c *v2) countKills() {
	n, err := c.Counters()
	if err != nil {
		return
	}
	c.mu.Lock()
	more := n.OOMKill - min(c.kills, n.OOMKill)
	c.kills = max(c.kills, n.OOMKill)
	escaped := more > 0 && c.opts.Hold && c.armed && !c.killing.Load()
	c.mu.Unlock()
	if more > 0 {
		c.fs.watch.post(func() { c.observed(time.Now()) })
	}
	if escaped {
		u, _ := c.Usage()
		c.fs.emitSoon(Event{Kind: EventEscape, Cgroup: c, Usage: u, Why: fmt.Sprintf("the kernel killed %d processes", more)})
	}
}
