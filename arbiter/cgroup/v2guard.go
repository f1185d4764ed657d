package cgroup

import (
	"errors"
	"slices"
	"sync/atomic"
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
)

// A worker runs a function on a goroutine of its own, once at a time, and once
// more if it was asked for meanwhile.
type worker struct{ state atomic.Int32 }

const (
	workerIdle int32 = iota
	workerBusy
	workerAgain
)

func (w *worker) ask(f func()) {
	for {
		switch {
		case w.state.CompareAndSwap(workerIdle, workerBusy):
			go w.run(f)
			return
		case w.state.CompareAndSwap(workerBusy, workerAgain), w.state.Load() == workerAgain:
			return
		}
	}
}

func (w *worker) run(f func()) {
	for {
		f()
		if w.state.CompareAndSwap(workerBusy, workerIdle) {
			return
		}
		w.state.Store(workerBusy)
	}
}

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
	if e.oom > before.oom && l.full() {
		l.hit.Store(now.UnixNano())
		l.firstOf.CompareAndSwap(0, now.UnixNano())
		l.limitHit(now)
	}
	if e.oomKill > before.oomKill {
		for _, c := range *l.users.Load() {
			go c.countKills()
		}
	}
	if e.high > before.high || e.oom > before.oom {
		l.work.ask(l.react)
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

// limitHit tells whose limit was hit. At an ancestor's, the one that grew has
// to be found first.
func (l *level) limitHit(now time.Time) {
	for _, c := range *l.users.Load() {
		if c.self == l {
			c.emitLimit(Event{Kind: EventLimit, At: now, Level: l.dir.path, Why: "the limit is reached and nothing can be reclaimed"})
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
	// Not ours to hold: the kernel decides.
	if err := l.standDown(); err != nil {
		l.fs.log.Error("let go of the guard", "cgroup", l.dir.path, "error", err)
	}
	for _, c := range *l.users.Load() {
		c.emitLimit(Event{Kind: EventNotOurs, At: now, Level: l.dir.path, Why: child + " reached the limit of " + l.dir.path})
		return
	}
}

// grower is the path of the child whose usage rose most above its mark; the
// largest where there are no marks. l.mu is held.
func (l *level) grower() string {
	best, most := l.dir.path, int64(-1)
	for path, usage := range l.usages() {
		if grown := int64(usage) - int64(l.marks[path]); grown > most {
			best, most = path, grown
		}
	}
	return best
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
	current, err := l.dir.number(fileCurrent)
	if err != nil {
		return reading{}, err
	}
	b, err := l.dir.read(fileStat)
	if err != nil {
		return reading{}, err
	}
	cache, err := parseReclaimable(b)
	return reading{at: now, real: current - min(cache, current)}, err
}

// react decides after an event. It runs on the level's worker.
func (l *level) react() {
	l.decide(func(b band, r reading) guardMove {
		if l.guarded {
			l.complain(l.rescan())
			return guardMove{kind: stay}
		}
		high, _ := l.high.Bytes()
		move := onHigh(b, high, &l.trail, r)
		if move.kind == stay {
			l.quietly()
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
			if b, ok := n.band(); ok && n.rec != nil && !n.guarded && n.held() {
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
	l.fs.watch.after(highPause, func() {
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
		case !l.fs.mayGuard():
			return l.setHigh(policy.LimitOf(l.underSoft(b.top)))
		}
		return l.standGuard(r.at, m.why)
	case raiseHigh, lowerHigh:
		return l.setHigh(policy.LimitOf(l.underSoft(m.high)))
	case letGo:
		// High first: from here on it tells again, whatever comes.
		return errors.Join(l.setHigh(policy.LimitOf(l.underSoft(m.high))), l.standDown())
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
	r, err := l.reading(now)
	if err != nil {
		return err
	}
	l.trail.add(r)
	switch {
	case l.always() && mayExempt():
		return l.standGuard(now, "guard is always on")
	case l.guarded:
		return nil
	case r.real+b.tolerance() >= b.top && mayExempt():
		return l.apply(b, guardMove{kind: standGuard, why: "near its limit when it was armed"}, r)
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

// sample is the level's look on the shared sampler. What it calls for is done
// elsewhere, over a reading of its own: memory.high below usage makes the
// kernel reclaim in the writer's name.
func (l *level) sample(now time.Time) time.Duration {
	if !l.mu.TryLock() {
		return sampleSoonest // somebody is busy here: he looks too
	}
	defer l.mu.Unlock()
	b, ok := l.band()
	if l.rec == nil || !ok || !l.held() {
		return 0
	}
	if l.scores.resting || l.scores.doomed {
		return sampleLatest
	}
	r, err := l.glance(b, now)
	if err != nil {
		return sampleLatest
	}
	slope, _ := l.trail.slope(r)
	move := l.consider(b, r)
	l.trail.add(r)
	if l.guarded || move.kind != stay {
		go l.carry()
	}
	if l.guarded {
		return sampleSoonest
	}
	return interval(r.real, b.limit, timeTo(b.limit, r.real, slope)) * 2
}

// consider decides over a reading that no event brought. l.mu is held.
func (l *level) consider(b band, r reading) guardMove {
	high, _ := l.high.Bytes()
	switch {
	case l.guarded && l.stuck(r.at):
		return guardMove{kind: letGo, high: b.top, why: "nobody held it at its limit"}
	case l.guarded && (l.always() || l.innerGuarded()):
		return guardMove{kind: stay}
	case l.guarded:
		return whileGuarded(b, l.since, &l.trail, r)
	default:
		return whileIdle(b, high, &l.trail, r)
	}
}

// glance is reading, but for what is far from its limit: there all memory is
// taken for real, which memory.stat need not be read for.
func (l *level) glance(b band, now time.Time) (reading, error) {
	current, err := l.dir.number(fileCurrent)
	if err != nil || current < b.base/2 {
		return reading{at: now, real: current}, err
	}
	return l.reading(now)
}

// innerGuarded reports whether a limit inside l is guarded: l's guard may not go
// before that, or whoever shares l would be the only one left to kill.
func (l *level) innerGuarded() bool {
	return slices.ContainsFunc(l.family(), func(n *level) bool { return n != l && n.up.Load() })
}

// carry does in its own time what sample saw reason for.
func (l *level) carry() {
	l.decide(func(b band, r reading) guardMove {
		l.complain(l.rescan())
		l.marks = nil
		if l.guarded {
			l.marks = l.usages()
		}
		move := l.consider(b, r)
		if l.guarded && move.kind == letGo && l.stuck(r.at) {
			l.fs.log.Warn("nothing was frozen at its limit; the kernel decides", "cgroup", l.dir.path)
		}
		return move
	})
}

// stuck reports whether the limit has been hit for a while and still is.
func (l *level) stuck(now time.Time) bool {
	first, last := l.firstOf.Load(), l.hit.Load()
	return first != 0 && now.Sub(time.Unix(0, first)) > stuckAfter && now.Sub(time.Unix(0, last)) < 2*time.Second
}

// mayGuard reports whether the budget has room for one more guard.
func (s *FS) mayGuard() bool {
	return !s.noGuards.Load() && (s.MaxGuarded <= 0 || int(s.guards.Load()) < s.MaxGuarded)
}
