package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// Without CAP_SYS_RESOURCE no score can be lowered. Instead the limit itself
// is raised while the tasks are being stopped, and lowered to what is used
// once they stand still. That covers everything but a single populate or
// mlock larger than the slack.

// slackOf is how much a limit is raised by meanwhile.
func slackOf(limit uint64) uint64 { return max(64*mib, limit/4) }

// crouch holds the container that l's memory.high told about: where a guard
// cannot be put up, that is the moment to freeze. l.mu is held; the work is
// done elsewhere, since it takes a turn and outer levels.
func (l *level) crouch(at time.Time, why string) {
	child := ""
	if users := *l.users.Load(); len(users) > 0 && users[0].self != l {
		child, _ = l.grower((*v2).stops)
	}
	for _, c := range *l.users.Load() {
		if c.self == l || child != "" && within(c.path, child) {
			go c.crouch(Event{Kind: EventLimit, At: at, Level: l.dir.path, Why: "near the limit: " + why})
			return
		}
	}
}

// crouch freezes c and tells of its limit.
func (c *v2) crouch(e Event) {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	end, err := c.begin(ctx, "freeze")
	if err != nil {
		return
	}
	defer end()
	c.mu.Lock()
	wanted := c.opts.Hold && !c.opts.NotAtLimit && c.armed && !c.held
	c.mu.Unlock()
	if !wanted || c.quiet.Load() {
		return
	}
	if err := c.freeze(ctx); err != nil {
		c.fs.log.Error("freeze near the limit", "cgroup", c.path, "error", err)
		return
	}
	e.Cgroup = c
	c.fs.emitSoon(e)
}

// slacken raises every limit, outermost first, and lifts memory.high.
func (c *v2) slacken(ctx context.Context) error {
	var errs []error
	for _, l := range slices.Backward(c.bound()) {
		l.mu.Lock()
		n, limited := l.limit.Bytes()
		if s := l.stakes[c]; s != nil && limited && l.rec != nil {
			s.slack = s.borrowed + s.granted + slackOf(n)
			errs = append(errs, l.relend(ctx), l.liftHigh())
		}
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}

// fit lowers what slacken raised to what is used now that nothing charges.
func (c *v2) fit(ctx context.Context) error {
	var errs []error
	for _, l := range c.bound() {
		l.mu.Lock()
		n, limited := l.limit.Bytes()
		if s := l.stakes[c]; s != nil && limited && l.rec != nil {
			current, err := l.dir.number(fileCurrent)
			s.slack = 0
			fits := n + l.rooms()
			if floor := current + chargedAhead; err == nil && floor > fits {
				s.slack = s.room() + floor - fits
			}
			low := l.relend(ctx)
			if errors.Is(low, ErrUsage) {
				low = nil
			}
			errs = append(errs, err, low)
		}
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}

// loosen prepares a thaw: memory.high tells again before the limit does.
func (c *v2) loosen(ctx context.Context) error {
	err := c.fit(ctx)
	for _, l := range c.bound() {
		l.mu.Lock()
		if b, ok := l.band(); ok && l.rec != nil {
			r, readErr := l.reading(time.Now())
			err = errors.Join(err, readErr)
			if readErr == nil {
				err = errors.Join(err, l.setHigh(policy.LimitOf(l.underSoft(above(b, r.real)))))
			}
		}
		l.mu.Unlock()
	}
	return err
}

// guardedBySlack is Guarded without scores.
func (c *v2) guardedBySlack(ctx context.Context, f func() error) error {
	if err := c.slacken(ctx); err != nil {
		return fmt.Errorf("guard %s: %w", c.path, err)
	}
	err := f()
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	if held {
		return errors.Join(err, c.fit(context.WithoutCancel(ctx)))
	}
	return errors.Join(err, c.loosen(context.WithoutCancel(ctx)))
}
