package cgroup

import (
	"errors"
	"slices"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

const (
	// highPause is how long memory.high events of a page cache load are not
	// looked at: the kernel sends up to a hundred a second.
	highPause = 50 * time.Millisecond
	// stuckAfter is how long a guard may stand at its limit without anybody
	// freezing what runs there. Such a task spins in the kernel and floods its
	// log; the kernel's kill is better.
	stuckAfter = 5 * time.Second
	// rowGap is the pause after which a limit that is hit was not hit all along.
	rowGap = 2 * time.Second
)

// notified runs on the watching goroutine when the counts of memory.events
// moved. Increments coalesce, so the counts are compared and wake-ups are not
// counted. Reading takes the notification off.
func (l *level) notified() {
	b, err := l.dir.read(fileLocalEvents)
	if err != nil {
		l.fs.watch.remove(l.watched)
		return
	}
	e, err := parseMemoryEvents(b)
	if err != nil {
		l.fs.log.Error("memory.events", "cgroup", l.dir.path, "error", err)
		return
	}
	before := l.seen
	l.seen = e
	now := time.Now()
	if e.oom > before.oom {
		l.lastOOM = now
		if l.full() {
			if now.Sub(time.Unix(0, l.hit.Load())) > rowGap {
				l.firstOf.Store(0)
			}
			l.hit.Store(now.UnixNano())
			l.firstOf.CompareAndSwap(0, now.UnixNano())
			l.limitHit(now)
		}
		l.countKillsSoon()
	}
	if e.oomKill > before.oomKill {
		l.countKills()
	}
	if e.high > before.high || e.max > before.max || e.oom > before.oom && !l.up.Load() {
		l.work.ask(l.react)
	}
}

// countKillsSoon looks for the kills of a limit that was hit. Those in a cgroup
// further inside are told there alone.
func (l *level) countKillsSoon() {
	if l.counting {
		return
	}
	l.counting = true
	l.fs.watch.after(highPause, func() {
		l.counting = false
		l.countKills()
	})
}

func (l *level) countKills() {
	for _, c := range *l.users.Load() {
		go c.countKills()
	}
}

// full reports whether usage still is at the limit. A notice that was on its
// way while the limit was raised is of the past.
func (l *level) full() bool {
	current, err := l.dir.number(fileCurrent)
	if err != nil {
		return false
	}
	limit, err := l.readLimit(fileMax)
	n, limited := limit.Bytes()
	return err == nil && limited && current+max(mib, n/64) >= n
}

// band is where memory.high may be now; false without a limit.
func (l *level) band() (band, bool) {
	n, ok := l.limit.Bytes()
	if !ok || n < mib {
		return band{}, false
	}
	b := bandOf(n + l.lent)
	if soft, ok := l.soft.Bytes(); ok && soft < b.base {
		b.base = soft // somebody wants throttling there: it is the first notice
	}
	return b, true
}

// reading reads what cannot be reclaimed. l.mu is held.
func (l *level) reading(now time.Time) (reading, error) {
	used, err := l.dir.unreclaimable()
	return reading{at: now, real: used}, err
}

// react decides after an event. It runs on the level's worker.
func (l *level) react() {
	l.decide(func(b band, r reading) guardMove {
		if l.guarded {
			l.complain(l.rescan())
			return guardMove{kind: stay}
		}
		if l.cached {
			l.quietly()
			return onCache(b, &l.trail, r)
		}
		high, set := l.high.Bytes()
		if !set { // lifted by a guard that may not be put up again
			return l.consider(b, r)
		}
		move := onHigh(b, high, &l.trail, r)
		if move.kind == stay {
			l.quietly()
			if l.cached = cacheOnly(b, r); l.cached {
				l.complain(l.liftHigh())
			}
		}
		return move
	})
}

// decide has f decide over a new reading, and does what it says. l.mu is not
// held, but while f runs.
func (l *level) decide(f func(band, reading) guardMove) {
	outer := l.fs.noGuards.Load() // then there is nothing to guard outside
	for {
		l.mu.Lock()
		b, ok := l.band()
		if !ok || l.rec == nil || !l.held() || l.scores.resting || l.scores.doomed {
			l.mu.Unlock()
			return
		}
		r, err := l.reading(time.Now())
		if err != nil {
			l.mu.Unlock()
			l.complain(err)
			return
		}
		move := f(b, r)
		l.trail.add(r)
		if move.kind != standGuard || outer {
			l.complain(l.apply(b, move, r))
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.guardOuter(b.limit - min(r.real, b.limit))
		outer = true
	}
}

// guardOuter puts up the guards of the limits further out that are about as
// near as this one, which has room bytes left: with an inner guard up and an
// outer one down, the kernel would kill a neighbour at the outer limit. No mu
// is held.
func (l *level) guardOuter(room uint64) {
	if !mayExempt() {
		return
	}
	for _, c := range *l.users.Load() {
		for _, n := range slices.Backward(c.bound()) {
			if n == l {
				break
			}
			n.mu.Lock()
			if b, ok := n.band(); ok && n.rec != nil && !n.guarded && n.held() && time.Now().After(n.barred) {
				r, err := n.reading(time.Now())
				if err == nil && r.real+2*room+b.width() >= b.limit {
					err = n.standGuard(r.at, "an inner limit is near")
				}
				n.complain(err)
			}
			n.mu.Unlock()
		}
	}
}

// quietly does not listen for a while.
func (l *level) quietly() {
	fd := l.watched
	if fd < 0 || l.quiet {
		return
	}
	l.quiet = true
	l.fs.watch.remove(fd)
	// Whoever holds mu may wait for the kernel: the watching goroutine must not.
	time.AfterFunc(highPause, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		again := l.quiet && l.watched == fd
		l.quiet = false
		if again {
			l.complain(l.fs.watch.add(fd, epollPri, l.notified))
		}
	})
}

// complain logs what nobody is there to be told.
func (l *level) complain(err error) {
	if err != nil && !errors.Is(err, ErrGone) {
		l.fs.log.Error("guard", "cgroup", l.dir.path, "error", err)
	}
}

// apply does what was decided. l.mu is held.
func (l *level) apply(b band, m guardMove, r reading) error {
	switch m.kind {
	case standGuard:
		switch {
		case !mayExempt():
			// What comes instead costs a hold: not before it is near.
			if r.real+b.tolerance() >= b.base {
				l.crouch(r.at, m.why)
			}
			return nil
		case !l.fs.mayGuard() || r.at.Before(l.barred):
			// The kernel decides, as it would without us: throttled at a
			// memory.high of ours it would starve instead.
			return l.setHigh(l.soft)
		}
		return l.standGuard(r.at, m.why)
	case raiseHigh, lowerHigh:
		return l.setHigh(policy.LimitOf(l.underSoft(m.high)))
	case letGo:
		// High first: from here on it tells again, whatever comes.
		return errors.Join(l.setHigh(policy.LimitOf(l.underSoft(m.high))), l.standDown())
	case surrender:
		return l.surrender(r.at)
	}
	return nil
}

// underSoft keeps a value of memory.high under one that somebody else set.
func (l *level) underSoft(high uint64) uint64 {
	if soft, ok := l.soft.Bytes(); ok {
		return min(high, soft)
	}
	return high
}

// arm puts memory.high in its place. l.mu is held.
func (l *level) arm(now time.Time) error {
	b, ok := l.band()
	if !ok || l.scores.resting {
		return nil
	}
	l.fs.sampler.add(l, l.sample)
	l.mark()
	r, err := l.reading(now)
	if err != nil {
		return err
	}
	l.trail.add(r)
	switch {
	case l.guarded:
		return nil
	case l.always() && mayExempt():
		return l.apply(b, guardMove{kind: standGuard, why: "guard is always on"}, r)
	case r.real+b.tolerance() >= b.top && mayExempt():
		l.work.ask(l.react) // outer limits come first, and their mu is not to be had here
		return nil
	}
	if current, err := l.dir.number(fileCurrent); err == nil && current >= b.base && cacheOnly(b, r) {
		l.cached = true
		return nil
	}
	return l.setHigh(policy.LimitOf(l.underSoft(above(b, r.real))))
}

func (l *level) always() bool {
	for _, s := range l.stakes {
		if s.hold && s.always {
			return true
		}
	}
	return false
}

// mayGuard reports whether the budget has room for one more guard.
func (s *FS) mayGuard() bool {
	return !s.noGuards.Load() && (s.MaxGuarded <= 0 || int(s.guards.Load()) < s.MaxGuarded)
}
