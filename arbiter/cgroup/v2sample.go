package cgroup

import (
	"slices"
	"time"
)

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
	if l.owing {
		go l.repay()
	}
	r, err := l.glance(b, now)
	if err != nil {
		return sampleLatest
	}
	slope, _ := l.trail.slope(r)
	l.mark()
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
		return guardMove{kind: surrender, why: "nobody held it at its limit"}
	case l.guarded && (l.always() || l.innerGuarded()):
		return guardMove{kind: stay}
	case l.guarded:
		return whileGuarded(b, l.since, &l.trail, r)
	case l.slackened() || l.fs.noGuards.Load():
		return guardMove{kind: stay} // it is being stopped without a guard, or nothing is to be done
	case l.always() && mayExempt() && !r.at.Before(l.barred):
		return guardMove{kind: standGuard, why: "guard is always on"}
	case l.cached:
		return onCache(b, &l.trail, r)
	case high == 0 && r.real+b.tolerance() >= b.top:
		return guardMove{kind: standGuard, why: "above the top of memory.high"}
	case high == 0: // lifted by a guard that could not be put up again
		return guardMove{kind: lowerHigh, high: above(b, r.real)}
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

// slackened reports whether the limit is raised for a freeze without a guard.
// l.mu is held.
func (l *level) slackened() bool {
	for _, s := range l.stakes {
		if s.slack > 0 {
			return true
		}
	}
	return false
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
		move := l.consider(b, r)
		if move.kind == surrender {
			l.fs.log.Warn("nothing was frozen at its limit; the kernel decides", "cgroup", l.dir.path)
		}
		return move
	})
}

// stuck reports whether the limit has been hit for a while and still is.
func (l *level) stuck(now time.Time) bool {
	first, last := l.firstOf.Load(), l.hit.Load()
	return first != 0 && now.Sub(time.Unix(0, first)) > stuckAfter && now.Sub(time.Unix(0, last)) < rowGap
}
