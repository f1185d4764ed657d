package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// Borrow lends room for a while, on top of what was granted.
func (c *v2) Borrow(ctx context.Context, bytes uint64) error {
	return c.lend(ctx, "borrow", func(s *stake) { s.borrowed = bytes })
}

// Grant lends room for good, instead of what was borrowed and granted.
func (c *v2) Grant(ctx context.Context, bytes uint64) error {
	return c.lend(ctx, "grant", func(s *stake) { s.borrowed, s.granted = 0, bytes })
}

// Restore takes all room back.
func (c *v2) Restore(ctx context.Context) error {
	return c.lend(ctx, "restore", func(s *stake) { s.borrowed, s.granted = 0, 0 })
}

// lend changes c's stake at every limit that binds it: outermost first, so
// that a raise has its effect only when it has room all the way up. Where
// lowering fails at one level the others are lowered all the same.
func (c *v2) lend(ctx context.Context, op string, change func(*stake)) error {
	end, err := c.begin(ctx, op)
	if err != nil {
		return err
	}
	defer end()
	levels, err := c.levels()
	if err != nil {
		return fmt.Errorf("%s %s: %w", op, c.path, err)
	}
	var errs []error
	var shown Status
	for _, l := range slices.Backward(levels) {
		var owned error
		if l.limited() {
			owned = c.own(l)
		}
		l.mu.Lock()
		s := l.stakes[c]
		if _, limited := l.limit.Bytes(); s != nil && limited && owned == nil {
			change(s)
			if err := l.own(); err != nil {
				errs = append(errs, err)
			} else {
				err := l.relend(ctx)
				errs = append(errs, err)
			}
			shown = Status{Borrowed: max(shown.Borrowed, s.borrowed), Granted: max(shown.Granted, s.granted)}
		}
		errs = append(errs, owned)
		l.mu.Unlock()
	}
	c.mu.Lock()
	c.lent = shown
	c.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s %s: %w", op, c.path, err)
	}
	return nil
}

// levels is bound, or what binds a container that is not armed.
func (c *v2) levels() ([]*level, error) {
	if b := c.bound(); len(b) > 0 {
		return b, nil
	}
	levels, err := c.binding()
	if err != nil {
		return nil, err
	}
	for _, l := range levels {
		if err := l.join(c, false, false); err != nil {
			return nil, err
		}
	}
	return levels, nil
}

// relend makes memory.max what the stakes ask for, and moves memory.high along
// with it. l.mu is held.
func (l *level) relend(ctx context.Context) error {
	n, limited := l.limit.Bytes()
	if !limited || l.rec == nil {
		return nil
	}
	l.rec.Borrowed, l.rec.Granted = 0, 0
	for _, s := range l.stakes {
		l.rec.Borrowed += s.room() - s.granted
		l.rec.Granted += s.granted
	}
	l.owing = false
	want := n + pageFloor(l.rooms())
	shown, err := l.readLimit(fileMax)
	if err != nil {
		return err
	}
	now, ok := shown.Bytes()
	if !ok || now == want {
		return nil
	}
	if want > now {
		err = l.setMax(want)
	} else {
		err = l.lower(ctx, now, want)
	}
	l.owing = errors.Is(err, ErrUsage)
	if err == nil || l.owing {
		err = errors.Join(err, l.followMax())
	}
	return err
}

// rooms is what all stakes together ask for. l.mu is held.
func (l *level) rooms() (sum uint64) {
	for _, s := range l.stakes {
		sum += s.room()
	}
	return sum
}

// repay lowers memory.max to what is lent once usage fits.
func (l *level) repay() {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _ := l.limit.Bytes()
	r, err := l.reading(time.Now())
	if err != nil || !l.owing || l.rec == nil || l.scores.doomed || r.real+chargedAhead > n+l.rooms() {
		return
	}
	if err := l.relend(context.Background()); !errors.Is(err, ErrUsage) {
		l.complain(err)
	}
}

// chargedAhead is what the processors charge in advance: it comes and goes.
const chargedAhead = 64 * pageBytes

// setMax writes memory.max, from a thread that no signal interrupts.
func (l *level) setMax(bytes uint64) error {
	to := policy.LimitOf(bytes)
	l.rec.intend(fileMax, l.limit.String(), to.String())
	l.maxField.Store(l.rec.Fields[fileMax].clone())
	if err := l.save(); err != nil {
		return err
	}
	if err := undisturbed(func() error { return l.dir.write(fileMax, to.String()) }); err != nil {
		return err
	}
	n, _ := l.limit.Bytes()
	l.lent = bytes - min(n, bytes)
	l.fs.changed("max "+to.String(), l.dir.path)
	return nil
}

// lower takes memory.max down from now to want. Below usage the kernel would
// kill at once, so it goes only as far as usage allows, and every process is
// exempt meanwhile where that can be had. What is cache is reclaimed.
func (l *level) lower(ctx context.Context, now, want uint64) error {
	r, err := l.reading(time.Now())
	if err != nil {
		return err
	}
	to := want
	if r.real+chargedAhead > want {
		to = pageFloor(r.real+chargedAhead) + pageBytes
	}
	if to >= now {
		return ErrUsage
	}
	if mayExempt() {
		err = l.shield(func() error { return l.setMax(to) })
	} else if err = l.shed(ctx, to-chargedAhead); err == nil {
		err = l.setMax(to)
	}
	if err == nil && to > want {
		err = ErrUsage
	}
	return err
}

// shed reclaims until usage is at most bytes, or says ErrUsage.
func (l *level) shed(ctx context.Context, bytes uint64) error {
	for range 4 {
		current, err := l.dir.number(fileCurrent)
		if err != nil || current <= bytes {
			return err
		}
		if !l.dir.has("memory.reclaim") || ctx.Err() != nil { // since 5.19
			break
		}
		// EAGAIN: less than that could be reclaimed.
		_ = l.dir.write("memory.reclaim", bytesOf(current-bytes))
	}
	return ErrUsage
}

// followMax puts memory.high where the new limit wants it. l.mu is held.
func (l *level) followMax() error {
	b, ok := l.band()
	if !ok || l.guarded || l.scores.resting || !l.held() {
		return nil
	}
	r, err := l.reading(time.Now())
	if err != nil {
		return err
	}
	return l.setHigh(policy.LimitOf(l.underSoft(above(b, r.real))))
}

// setHigh writes memory.high. The kernel reclaims in the writer's name until
// usage fits. l.mu is held.
func (l *level) setHigh(to policy.Limit) error {
	if l.high == to || l.rec == nil {
		return nil
	}
	l.rec.intend(fileHigh, l.soft.String(), to.String())
	if err := l.save(); err != nil {
		return err
	}
	if err := l.dir.write(fileHigh, to.String()); err != nil {
		return err
	}
	l.high = to
	if _, set := to.Bytes(); set {
		l.cached = false
	}
	l.fs.changed("high "+to.String(), l.dir.path)
	return nil
}

// liftHigh takes memory.high out of the way.
func (l *level) liftHigh() error { return l.setHigh(policy.NoLimit) }

// undoLimits puts memory.high and memory.max back; one that usage does not fit
// under only if it is late. l.mu is held.
func (l *level) undoLimits(late bool) error {
	left, err := l.fs.undoV2(l.dir, l.rec, late)
	for _, why := range left {
		l.fs.log.Warn("left as it is", "cgroup", l.dir.path, "why", why)
	}
	l.high = l.soft
	if l.rec.Fields[fileMax] == nil {
		l.lent = 0
		l.maxField.Store(nil)
	}
	return errors.Join(err, l.save())
}

// base is the limit that shown would be without what we lent. It never waits.
func (l *level) base(shown string) policy.Limit {
	if f := l.maxField.Load(); f.ours(shown) {
		shown = f.Original
	}
	limit, _ := parseMax(shown)
	return limit
}

// maxWritten adopts a limit that somebody else wrote: it is the container's.
func (l *level) maxWritten() {
	l.mu.Lock()
	shown, err := l.readLimit(fileMax)
	n, limited := l.limit.Bytes()
	if err != nil || shown == l.limit && l.lent == 0 || limited && shown == policy.LimitOf(n+l.lent) || l.scores.doomed {
		l.mu.Unlock()
		return
	}
	l.limit, l.lent = shown, 0
	if l.rec != nil {
		for _, s := range l.stakes {
			s.borrowed, s.granted, s.slack = 0, 0, 0
		}
		l.rec.adopt(fileMax, shown.String())
		l.rec.Borrowed, l.rec.Granted = 0, 0
		l.maxField.Store(nil)
		l.complain(l.save())
		switch _, limited := l.band(); {
		case !limited: // nothing is left to guard
			l.complain(errors.Join(l.standDown(), l.setHigh(l.soft)))
		case l.held():
			l.complain(l.arm(time.Now()))
		}
	}
	l.mu.Unlock()
	for _, c := range *l.users.Load() {
		u, _ := c.Usage()
		c.fs.emitSoon(Event{Kind: EventLimitChanged, Cgroup: c, At: time.Now(), Level: l.dir.path, Usage: u, Why: "memory.max=" + shown.String()})
	}
}

// highWritten adopts a memory.high that somebody else wrote.
func (l *level) highWritten() {
	l.mu.Lock()
	defer l.mu.Unlock()
	shown, err := l.readLimit(fileHigh)
	if err != nil || shown == l.high {
		return
	}
	if l.rec != nil && l.rec.Fields[fileHigh].ours(shown.String()) {
		l.high = shown // a write that failed half-way
		return
	}
	l.soft, l.high = shown, shown
	if l.rec == nil {
		return
	}
	l.rec.adopt(fileHigh, shown.String())
	l.complain(l.save())
	switch {
	case !l.held():
	case l.guarded || l.scores.resting:
		l.complain(l.liftHigh())
	default:
		l.complain(l.arm(time.Now()))
	}
}
