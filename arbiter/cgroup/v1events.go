package cgroup

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

const (
	// recheckAfter is when a look for sleepers follows a change that may have
	// swallowed a notification.
	recheckAfter = 50 * time.Millisecond
	// handOverWait is how long the kernel gets to kill at a limit that was
	// left to it, before the guard is back.
	handOverWait = time.Second
	// atLimit is how near usage is to a limit that was hit: what processors
	// have charged in advance counts as used.
	atLimit = 1 << 20
)

// outOfMemory runs when the kernel signals the eventfd of n: its own limit or
// an ancestor's was hit, or n was removed. Only the counters tell which.
func (n *node) outOfMemory() {
	at := time.Now()
	if !n.dir.alive() {
		n.gone(at)
		return
	}
	o, err := n.dir.oomControl()
	if err != nil {
		return
	}
	n.observed(at)
	if !o.underOOM {
		n.lookForEscapes(at)
		return
	}
	hit := n.outermostUnderOOM()
	hit.limitHit(at)
	if hit != n && n.full() {
		n.limitHit(at)
	}
}

// membersOf lists the containers that n matters to and that match.
func (n *node) membersOf(match func(*v1) bool) []*v1 {
	n.seen.Lock()
	defer n.seen.Unlock()
	var all []*v1
	for c := range n.members {
		if match(c) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *v1) int { return bytes.Compare([]byte(a.path), []byte(b.path)) })
	return all
}

func anyMember(*v1) bool { return true }

// gone tells that a directory was removed. A container's ancestors cannot go
// before itself.
func (n *node) gone(at time.Time) {
	for _, c := range n.membersOf(func(c *v1) bool { return c.self == n }) {
		c.emit(Event{Kind: EventGone, At: at, Why: "the cgroup was removed"})
	}
}

// observed reports a limit that was hit to containers that only want to know:
// there the kernel kills as ever, often before anybody could look.
func (n *node) observed(at time.Time) {
	for _, c := range n.membersOf(func(c *v1) bool { return c.self == n && c.observes() }) {
		c.emit(Event{Kind: EventLimit, At: at, Level: n.outermostUnderOOM().dir.path, Why: "the kernel reports out of memory; nothing is guarded"})
	}
}

func (c *v1) observes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opts.Observe && !c.opts.Hold
}

func (c *v1) holds() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opts.Hold
}

// outermostUnderOOM is the level whose limit was hit: under_oom is passed on
// to descendants, never to ancestors.
func (n *node) outermostUnderOOM() *node {
	outer := n
	members := n.membersOf(anyMember)
	if len(members) == 0 {
		return n
	}
	chain := members[0].chain // above n it is the same for all
	for _, level := range chain[slices.Index(chain, n):] {
		if o, err := level.dir.oomControl(); err == nil && o.underOOM {
			outer = level
		}
	}
	return outer
}

// full reports whether usage is at n's own limit.
func (n *node) full() bool {
	shown, err := n.dir.limits()
	if err != nil {
		return false
	}
	usage, err := n.dir.number(fileUsage)
	return err == nil && addBytes(usage, atLimit) >= shown.memory
}

// limitHit finds out who hit the limit of n, and tells.
func (n *node) limitHit(at time.Time) {
	guarded := n.membersOf((*v1).holds)
	if slices.ContainsFunc(guarded, func(c *v1) bool { return c.stopsFor(n) }) {
		return // the echo of a nudge, or room that a verdict is about to make
	}
	for _, c := range guarded {
		if c.self == n {
			c.tellLimit(n, at, "its own limit is hit and nothing can be reclaimed")
			return
		}
	}
	n.findOffender(at, guarded, offenderLooks)
}

// tellLimit emits EventLimit.
func (c *v1) tellLimit(level *node, at time.Time, why string) {
	usage, _ := c.Usage()
	c.setMark(usage.Current, level)
	c.emit(Event{Kind: EventLimit, At: at, Level: level.dir.path, Why: why, Usage: usage})
}

// setMark notes usage, to tell later who grew, and whose limit was hit.
func (c *v1) setMark(usage uint64, level *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark, c.hit = usage, level
}

// lookAt notes usage, to tell later who grew.
func (c *v1) lookAt() {
	usage, err := c.self.dir.number(fileUsage)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark = usage
}

// stopsFor reports whether c is being held because the limit of n was hit.
func (c *v1) stopsFor(n *node) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping.Load() && (c.hit == n || c.self == n)
}

// lookForEscapes compares the kernel's kill counters of the guarded containers
// at n with what was last seen.
func (n *node) lookForEscapes(at time.Time) {
	for _, c := range n.membersOf((*v1).holds) {
		c.lookForEscape(at)
	}
}

func (c *v1) lookForEscape(at time.Time) {
	now, err := c.Counters()
	if err != nil {
		return
	}
	c.mu.Lock()
	kills := now.OOMKill - min(c.oomed, now.OOMKill)
	c.oomed = now.OOMKill
	c.mu.Unlock()
	if kills > 0 {
		c.emit(Event{Kind: EventEscape, At: at, Why: fmt.Sprintf("the kernel killed %d processes although the guard was up", kills)})
	}
}

// forgive takes the kernel's kills so far for known.
func (c *v1) forgive() {
	if now, err := c.Counters(); err == nil {
		c.mu.Lock()
		c.oomed = now.OOMKill
		c.mu.Unlock()
	}
}

// recheckSoon looks for sleepers a little later: a notification that came
// while we held the container was taken for an echo.
func (c *v1) recheckSoon() { c.fs.watch.after(recheckAfter, c.recheck) }

// recheck tells of sleepers at a limit that no event has told of. It runs in
// the watching goroutine.
func (c *v1) recheck() {
	if !c.holds() || c.stopping.Load() {
		return
	}
	for _, n := range slices.Backward(c.chain) {
		o, err := n.dir.oomControl()
		if err == nil && o.underOOM {
			n.limitHit(time.Now())
			return
		}
	}
}

func (c *v1) emit(e Event) {
	e.Cgroup = c
	c.fs.emit(e)
}
