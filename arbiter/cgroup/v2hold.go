package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

const (
	// frozenPoll bounds one wait for the kernel's word that all tasks stand
	// still, so that a context's end is seen.
	frozenPoll = 10 * time.Millisecond
	// crawlAfter is when an allocator that cannot be frozen inside one system
	// call, and cannot be guarded either, is slowed down.
	crawlAfter = 150 * time.Millisecond
	// neighbourBytes is the usage from which another child of a full ancestor
	// counts as one that may charge while this one is frozen.
	neighbourBytes = 8 * mib
)

// bound lists the levels that c is a user of, from the inside out. c.turn is
// held, or the answer may be out of date.
func (c *v2) bound() []*level {
	var levels []*level
	for _, l := range c.chain {
		if slices.Contains(*l.users.Load(), c) {
			levels = append(levels, l)
		}
	}
	return levels
}

// Freeze stops every task.
func (c *v2) Freeze(ctx context.Context) error {
	end, err := c.begin(ctx, "freeze")
	if err != nil {
		return err
	}
	defer end()
	return c.freeze(ctx)
}

// freeze is Freeze within a turn.
func (c *v2) freeze(ctx context.Context) error {
	c.quiet.Store(true)
	if err := c.brace(ctx); err != nil {
		c.fs.log.Warn("freeze without a guard", "cgroup", c.path, "error", err)
	}
	err := c.askFreeze()
	if err == nil {
		err = c.awaitFrozen(ctx, true)
	}
	if err != nil {
		c.quiet.Store(false)
		err = errors.Join(fmt.Errorf("freeze %s: %w", c.path, err), ignoreGone(c.selfThaw()))
		if !mayExempt() {
			err = errors.Join(err, ignoreGone(c.loosen(context.WithoutCancel(ctx))))
		}
		return err
	}
	c.setHeld(true)
	c.fs.changed("frozen", c.path)
	return c.rest(ctx)
}

// brace keeps the kernel from killing while the tasks are being stopped, if
// they may reach a limit meanwhile, and lifts memory.high: a task that sleeps
// in its throttle freezes late.
func (c *v2) brace(ctx context.Context) error {
	if !mayExempt() {
		return c.slacken(ctx)
	}
	var errs []error
	for _, l := range slices.Backward(c.bound()) {
		l.mu.Lock()
		if b, ok := l.band(); ok && l.rec != nil && !l.guarded {
			r, err := l.glance(b, time.Now())
			if err == nil && r.real >= b.base-b.width() {
				err = l.standGuard(r.at, "about to freeze")
			}
			errs = append(errs, err)
		}
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}

// askFreeze records the freeze and asks the kernel for it.
func (c *v2) askFreeze() error {
	l := c.self
	if err := c.own(l); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.own(); err != nil {
		return err
	}
	if l.rec.Freeze == nil {
		v, err := l.dir.value(fileFreeze)
		if err != nil {
			return err
		}
		l.rec.Freeze = &FreezeRecord{Kind: freezeV2, Path: c.path, Inode: c.ID(), Foreign: v == "1"}
		if err := l.save(); err != nil {
			return err
		}
	}
	c.wantFrozen.Store(true)
	return l.dir.write(fileFreeze, "1")
}

// awaitFrozen waits until the kernel says that the tasks stand still, or that
// they do no more.
func (c *v2) awaitFrozen(ctx context.Context, frozen bool) error {
	fd := []unix.PollFd{{Fd: int32(c.self.dir.kept[fileCgEvents].Fd()), Events: unix.POLLPRI}}
	began, crawls := time.Now(), mayExempt()
	for {
		b, err := c.self.dir.read(fileCgEvents)
		if err != nil {
			return err
		}
		e, err := parseCgroupEvents(b)
		if err != nil || e.frozen == frozen || !e.populated {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !crawls && frozen && time.Since(began) > crawlAfter {
			crawls = true
			c.crawl()
		}
		if _, err := unix.Poll(fd, int(frozenPoll.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll cgroup.events: %w", err)
		}
	}
}

// crawl sets memory.high to what is used: from here on every charge waits.
func (c *v2) crawl() {
	l := c.self
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, err := l.dir.number(fileCurrent); err == nil && l.rec != nil {
		l.complain(l.setHigh(policy.LimitOf(pageFloor(n))))
	}
}

// rest puts the scores back now that nothing of c can charge: the node's own
// out-of-memory killer sees it again. Where neighbours run on under the same
// full limit, c would be the only one left to kill: then the guard stays.
func (c *v2) rest(ctx context.Context) error {
	if !mayExempt() {
		return c.fit(ctx)
	}
	if c.crowded() {
		return nil
	}
	return c.setResting(true)
}

func (c *v2) setResting(resting bool) error {
	l := c.self
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scores.resting, l.scores.crowded = resting, false
	if l.rec == nil {
		return nil
	}
	return l.settle()
}

// crowded reports whether others run under a limit that c is guarded at.
func (c *v2) crowded() bool {
	return slices.ContainsFunc(c.chain[1:], func(l *level) bool { return l.up.Load() && l.crowds(c.path) })
}

func (c *v2) setHeld(held bool) {
	c.mu.Lock()
	c.held = held
	c.mu.Unlock()
}

// Thaw guards again, since what was frozen at its limit charges at once, and
// lets the tasks run.
func (c *v2) Thaw(ctx context.Context) error {
	end, err := c.begin(ctx, "thaw")
	if err != nil {
		return err
	}
	defer end()
	if err := c.ready(ctx); err != nil {
		return fmt.Errorf("thaw %s: %w", c.path, err)
	}
	c.quiet.Store(false)
	if err := c.selfThaw(); err != nil {
		return fmt.Errorf("thaw %s: %w", c.path, err)
	}
	c.setHeld(false)
	if b, err := c.self.dir.value(fileFreeze); err == nil && b == "1" {
		return nil // somebody else had frozen it
	}
	return c.awaitFrozen(ctx, false)
}

// ready puts up every guard before a thaw.
func (c *v2) ready(ctx context.Context) error {
	if !mayExempt() {
		return c.loosen(ctx)
	}
	var errs []error
	for _, l := range slices.Backward(c.bound()) {
		l.mu.Lock()
		if _, ok := l.band(); ok && l.rec != nil {
			errs = append(errs, l.standGuard(time.Now(), "about to thaw"))
			l.since = time.Now()
			l.firstOf.Store(0)
		}
		l.mu.Unlock()
	}
	return errors.Join(append(errs, c.setResting(false))...)
}

// selfThaw undoes the freeze that the record knows of.
func (c *v2) selfThaw() error {
	l := c.self
	l.mu.Lock()
	defer l.mu.Unlock()
	c.wantFrozen.Store(false)
	if l.rec == nil || l.rec.Freeze == nil {
		return nil
	}
	if err := l.fs.letGo(l.rec.Freeze); err != nil {
		return err
	}
	l.rec.Freeze = nil
	l.fs.changed("thawed", c.path)
	return l.save()
}

var errNoGuards = errors.New("the node is short of memory: nothing may be hidden from its out-of-memory killer")

// Guarded protects c, frozen or not, against the kernel kills that a foreign
// charge would cause: reading pages of a shared mapping that nobody touched
// yet, or swapped ones, charges the container.
func (c *v2) Guarded(ctx context.Context, f func() error) error {
	if !mayExempt() {
		return c.guardedBySlack(ctx, f)
	}
	if c.fs.noGuards.Load() {
		return fmt.Errorf("guard %s: %w", c.path, errNoGuards)
	}
	levels := c.bound() // the same ones before and after
	add := func(n int) error {
		var errs []error
		for _, l := range slices.Backward(levels) {
			l.mu.Lock()
			errs = append(errs, l.addShields(n))
			l.mu.Unlock()
		}
		return errors.Join(errs...)
	}
	if err := add(1); err != nil {
		return errors.Join(fmt.Errorf("guard %s: %w", c.path, err), add(-1))
	}
	err := f()
	return errors.Join(err, add(-1))
}
