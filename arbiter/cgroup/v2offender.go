package cgroup

import (
	"slices"
	"time"
)

// barredFor is how long an ancestor stays without a guard after somebody who is
// not ours reached its limit.
const barredFor = 10 * time.Second

// blameAfter is how long a limit has to be hit, while somebody is held below
// it, until one is blamed that did not grow.
const blameAfter = time.Second

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
	child, grew := l.grower((*v2).stops)
	if !grew && l.any(l.dir.path, (*v2).stops) && now.Sub(time.Unix(0, l.firstOf.Load())) < blameAfter {
		return // the notice may be of one that is being stopped; whoever runs on sends more
	}
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
// none rose much, the largest. One with a container that but is true of is none.
// l.mu is held.
func (l *level) grower(but func(*v2) bool) (path string, grew bool) {
	best, most := "", int64(mib)
	largest, size := l.dir.path, uint64(0)
	for path, usage := range l.usages() {
		if l.any(path, but) {
			continue
		}
		if grown := int64(usage) - int64(l.marks[path]); grown > most {
			best, most = path, grown
		}
		if usage > size {
			largest, size = path, usage
		}
	}
	if best == "" {
		return largest, false
	}
	return best, true
}

// any reports whether something is true of a container in a directory.
func (l *level) any(path string, is func(*v2) bool) bool {
	return slices.ContainsFunc(*l.users.Load(), func(c *v2) bool { return within(c.path, path) && is(c) })
}

// stops reports whether c is held, about to be, or being let go of.
func (c *v2) stops() bool { return c.quiet.Load() }

// isHeld reports whether c stands still.
func (c *v2) isHeld() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
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
