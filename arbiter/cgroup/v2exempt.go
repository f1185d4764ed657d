package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// An exemption tells why the processes of a level are exempt from kernel
// kills, and whether they are. A level's own processes are those below it that
// no level further inside has a record for.
type exemption struct {
	reasons map[*level]bool // guarded levels, this one or outer ones
	shields int             // writes and foreign reads under way that may charge
	resting bool            // frozen: nothing charges, so the reasons rest
	crowded bool            // they do not: others charge to a limit that is guarded
	doomed  bool            // being killed
	on      bool
}

func (e *exemption) wanted() bool {
	return !e.doomed && (e.shields > 0 || len(e.reasons) > 0 && (!e.resting || e.crowded))
}

// settle makes the scores what the exemption wants. Called again while it is
// on, it finds newcomers. l.mu is held.
func (l *level) settle() error {
	if l.rec == nil {
		return nil
	}
	board := scoreboard{l.fs.proc}
	switch {
	case l.scores.wanted():
		l.scores.on = true
		return board.exempt(l.pids, l.rec, l.save)
	case l.scores.on || l.rec.Scores != nil:
		if l.rec.Scores != nil {
			if err := board.restore(l.pids, l.rec.Scores); err != nil {
				return err
			}
			l.rec.Scores = nil
			if err := l.save(); err != nil {
				return err
			}
		}
		l.scores.on = false
		l.fs.changed("scores restored", l.dir.path)
	}
	return nil
}

// pids lists the processes that are l's own.
func (l *level) pids() ([]int, error) {
	inner := map[uint64]bool{}
	for _, n := range l.family() {
		if n != l {
			inner[n.dir.ino] = true
		}
	}
	return l.dir.pidsBut(func(d *dir) bool { return inner[d.ino] })
}

// pidsBut lists the processes of d and below, without the directories that
// skip names and what is below them.
func (d *dir) pidsBut(skip func(*dir) bool) ([]int, error) {
	pids, err := d.ownPids()
	if err != nil {
		return nil, err
	}
	names, err := d.children()
	if err != nil {
		return pids, ignoreGone(err)
	}
	for _, name := range names {
		c, err := d.child(name)
		if err != nil {
			continue // gone
		}
		if !skip(c) {
			below, err := c.pidsBut(skip)
			if err != nil && !errors.Is(err, ErrGone) {
				c.close()
				return pids, err
			}
			pids = append(pids, below...)
		}
		c.close()
	}
	return pids, nil
}

// eachOfFamily calls f for l, whose mu is held, and for every level inside it,
// with its mu held: the innermost first when guards go up, and as comingDown
// says when they come down.
func (l *level) eachOfFamily(up bool, f func(*level) error) error {
	all := l.family()
	if up {
		slices.Reverse(all)
	} else {
		l.comingDown(all)
	}
	var errs []error
	for _, n := range all {
		if n != l {
			n.mu.Lock()
		}
		if n.rec != nil {
			errs = append(errs, ignoreGone(f(n)))
		}
		if n != l {
			n.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// comingDown orders a family, given from the outside in, for the end of an
// exemption. Whoever is first is alone to be killed for a moment, if the limit
// is being hit: the one that grew, with everything inside it.
func (l *level) comingDown(all []*level) {
	if len(all) == 1 {
		return
	}
	grower, _ := l.grower((*v2).isHeld)
	if grower == l.dir.path {
		return
	}
	grew := func(n *level) bool { return within(n.dir.path, grower) }
	slices.SortStableFunc(all, func(a, b *level) int {
		switch {
		case grew(a) == grew(b):
			return 0
		case grew(a):
			return -1
		}
		return 1
	})
}

// shield exempts everything that l's limit binds while f runs: f does what may
// charge more than fits. l.mu is held, and still is while f runs.
func (l *level) shield(f func() error) error {
	if err := l.addShields(1); err != nil {
		return errors.Join(err, l.addShields(-1))
	}
	err := f()
	return errors.Join(err, l.addShields(-1))
}

// addShields is the beginning (1) or the end (-1) of a shield. l.mu is held.
func (l *level) addShields(n int) error {
	return l.eachOfFamily(n > 0, func(i *level) error {
		i.scores.shields = max(0, i.scores.shields+n)
		return i.settle()
	})
}

// standGuard exempts everything that l's limit binds, and lifts memory.high:
// tasks asleep in its throttle would freeze only after up to two seconds, and
// inside one system call not at all. l.mu is held.
func (l *level) standGuard(now time.Time, why string) error {
	if l.guarded || l.fs.noGuards.Load() {
		return nil
	}
	l.fs.guards.Add(1)
	l.guarded, l.since, l.cached = true, now, false
	l.firstOf.Store(0)
	err := l.rescanAll()
	err = errors.Join(err, l.liftHigh())
	l.up.Store(true)
	l.fs.changed("guarded", l.dir.path)
	l.fs.log.Debug("guard is up", "cgroup", l.dir.path, "why", why, "error", err)
	l.fs.sampler.hurry(l, slopeAge)
	return err
}

// standDown gives the kernel its right to kill back. l.mu is held.
func (l *level) standDown() error {
	err := l.eachOfFamily(false, func(n *level) error {
		delete(n.scores.reasons, l)
		return n.settle()
	})
	if l.guarded {
		l.fs.guards.Add(-1)
		l.guarded = false
		l.up.Store(false)
		l.fs.changed("guard down", l.dir.path)
	}
	return err
}

// rescan looks for newcomers, which the kernel would kill instead of what is
// guarded. l.mu is held.
func (l *level) rescan() error {
	if !l.guarded {
		return nil
	}
	return l.rescanAll()
}

func (l *level) rescanAll() error {
	return l.eachOfFamily(true, func(n *level) error {
		n.scores.reasons[l] = true
		if n.scores.resting && !n.scores.crowded {
			n.scores.crowded = n != l && l.crowds(n.dir.path)
		}
		return n.settle()
	})
}

// crowds reports whether others than path, one of those below l, may charge to
// l's limit: with everything else exempt, the kernel would kill there.
func (l *level) crowds(path string) bool {
	for other, usage := range l.usages() {
		if !within(path, other) && usage > neighbourBytes {
			return true
		}
	}
	return false
}

// surrender lets the kernel decide at l's limit, and does not keep it from
// that for a while. The guards further inside go as well: what they leave to
// be killed is never what filled l. Only what is frozen keeps its own. l.mu is
// held.
func (l *level) surrender(now time.Time) error {
	return l.eachOfFamily(false, func(n *level) error {
		if n.scores.resting {
			return nil
		}
		n.barred = now.Add(barredFor)
		delete(n.scores.reasons, l)
		return errors.Join(n.standDown(), n.setHigh(n.soft))
	})
}

// inherit takes over what an outer level's record says about scores. Both mu are
// held.
func (l *level) inherit(outer *level) error {
	if outer.rec.Scores == nil {
		return nil
	}
	scores := *outer.rec.Scores
	scores.Except = slices.Clone(scores.Except)
	l.rec.Scores = &scores
	maps.Copy(l.scores.reasons, outer.scores.reasons)
	l.scores.shields, l.scores.on = outer.scores.shields, outer.scores.on
	if err := l.save(); err != nil {
		return fmt.Errorf("hand over scores: %w", err)
	}
	return nil
}
