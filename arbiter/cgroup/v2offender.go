package cgroup

import (
	"slices"
	"time"
)

// barredFor is how long an ancestor stays without a guard after somebody who is
// not ours reached its limit.
const barredFor = 10 * time.Second

// limitHit tells whose limit was hit, on the watching goroutine. At an ancestor's, the one that grew has
// to be found first.
func (l *level) limitHit(now time.Time) {
	for _, c := range *l.users.Load() {
		if c.self == l {
			if c.wantsLimits() {
				l.fs.emit(Event{
					Kind: EventLimit, Cgroup: c, At: now, Level: l.dir.path,
					Why: "the limit is reached and nothing can be reclaimed",
				})
			}
			return
		}
	}
	go l.ancestorHit(now)
}

// ancestorHit finds the child of l that grew most since it was last looked at.
func (l *level) ancestorHit(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.full() {
		return // it was raised meanwhile
	}
	child := l.grower()
	for _, c := range *l.users.Load() {
		if within(c.path, child) {
			c.emitLimit(Event{
				Kind: EventLimit, At: now, Level: l.dir.path,
				Why: "the limit of " + l.dir.path + " is reached and nothing can be reclaimed",
			})
			return
		}
	}
	// Not ours to hold: the kernel decides, and is not kept from it again at
	// its next attempt.
	l.barred = now.Add(barredFor)
	if err := l.standDown(); err != nil {
		l.fs.log.Error("let go of the guard", "cgroup", l.dir.path, "error", err)
	}
	for _, c := range *l.users.Load() {
		c.emitLimit(Event{Kind: EventNotOurs, At: now, Level: l.dir.path, Why: child + " reached the limit of " + l.dir.path})
		return
	}
}

// grower is the path of the child whose usage rose most above its mark; where
// none rose much, the largest. What stands still did not grow. l.mu is held.
func (l *level) grower() string {
	best, most := l.dir.path, int64(mib)
	largest, size := l.dir.path, uint64(0)
	for path, usage := range l.usages() {
		if l.still(path) {
			continue
		}
		if grown := int64(usage) - int64(l.marks[path]); grown > most {
			best, most = path, grown
		}
		if usage > size {
			largest, size = path, usage
		}
	}
	if best == l.dir.path {
		return largest
	}
	return best
}

// still reports whether a child of l is a container that is held.
func (l *level) still(path string) bool {
	return slices.ContainsFunc(*l.users.Load(), func(c *v2) bool { return within(c.path, path) && c.quiet.Load() })
}

// mark notes how much the children of an ancestor use. At the limit nobody grows
// any more: then the older marks tell who did. l.mu is held.
func (l *level) mark() {
	for _, c := range *l.users.Load() {
		if c.self == l {
			return
		}
	}
	if l.marks == nil || !l.full() {
		l.marks = l.usages()
	}
}

// usages reads memory.current of the children.
func (l *level) usages() map[string]uint64 {
	names, err := l.dir.children()
	if err != nil {
		return nil
	}
	all := map[string]uint64{}
	for _, name := range names {
		c, err := l.dir.child(name)
		if err != nil {
			continue
		}
		if n, err := c.number(fileCurrent); err == nil {
			all[c.path] = n
		}
		c.close()
	}
	return all
}
