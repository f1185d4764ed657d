package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Borrow lends bytes above the original limit, on top of what was granted.
// Borrow(0) gives only the borrowed room back.
func (c *v1) Borrow(ctx context.Context, bytes uint64) error {
	return c.lend(ctx, "borrow", func(s *share) { s.borrowed = bytes })
}

// Grant replaces borrowed and granted room by bytes of granted room.
func (c *v1) Grant(ctx context.Context, bytes uint64) error {
	return c.lend(ctx, "grant", func(s *share) { s.borrowed, s.granted = 0, bytes })
}

// Restore gives all lent room back.
func (c *v1) Restore(ctx context.Context) error {
	return c.lend(ctx, "restore", func(s *share) { s.borrowed, s.granted = 0, 0 })
}

// lend changes c's share at every level. Room comes outermost first, since an
// inner limit without the outer one is no room; it goes innermost first. A
// raise that fails half-way is taken back.
func (c *v1) lend(ctx context.Context, op string, change func(*share)) error {
	end, err := c.begin(ctx, op)
	if err != nil {
		return err
	}
	defer end()
	old := map[*node]share{}
	raises, err := c.reshare(old, change)
	if err != nil {
		return fmt.Errorf("%s %s: %w", op, c.path, err)
	}
	order := slices.Clone(c.chain)
	if raises {
		slices.Reverse(order)
	}
	var errs []error
	for _, n := range order {
		err := n.apply()
		if err != nil && raises {
			c.takeBack(old)
			return fmt.Errorf("%s %s: %w", op, c.path, err)
		}
		errs = append(errs, err)
	}
	c.noteShare()
	c.recheckSoon()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s %s: %w", op, c.path, err)
	}
	return nil
}

// reshare notes the change at every level that has a limit, and owns it. It
// reports whether room grows.
func (c *v1) reshare(old map[*node]share, change func(*share)) (raises bool, err error) {
	for _, n := range c.chain {
		n.mu.Lock()
		s := n.member(c)
		old[n] = *s
		change(s)
		raises = raises || s.borrowed+s.granted > old[n].borrowed+old[n].granted
		if n == c.self || n.limited() {
			err = n.claim()
		}
		n.mu.Unlock()
		if err != nil {
			c.putShares(old)
			return false, err
		}
	}
	return raises, nil
}

// takeBack undoes a raise that failed half-way, innermost first.
func (c *v1) takeBack(old map[*node]share) {
	c.putShares(old)
	for _, n := range c.chain {
		if err := n.apply(); err != nil {
			c.fs.log.Warn("take back a raise", "cgroup", n.dir.path, "error", err)
		}
	}
}

func (c *v1) putShares(old map[*node]share) {
	for n, s := range old {
		n.mu.Lock()
		*n.members[c] = s
		n.mu.Unlock()
	}
}

// noteShare puts c's share into its status.
func (c *v1) noteShare() {
	c.self.mu.Lock()
	s := *c.self.members[c]
	c.self.mu.Unlock()
	c.mu.Lock()
	c.status.Borrowed, c.status.Granted = s.borrowed, s.granted
	c.mu.Unlock()
}

// apply makes the kernel's limits what the members' shares say.
func (n *node) apply() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rec == nil {
		return nil // nothing binds here
	}
	n.busy.Add(1)
	defer n.busy.Add(-1)
	defer n.fs.watch.settle()
	return n.applyShares()
}

// applyShares is apply with n.mu held and n marked busy.
func (n *node) applyShares() error {
	shown, err := n.dir.limits()
	if err != nil {
		return err
	}
	var borrowed, granted uint64
	for _, s := range n.members {
		borrowed += s.borrowed
		granted += s.granted
	}
	want := n.rec.originalLimits(shown).plus(borrowed + granted)
	if want == shown {
		return nil
	}
	n.rec.Borrowed, n.rec.Granted = borrowed, granted
	save := func() error { return n.save() }
	if want.memory < shown.memory || want.memsw < shown.memsw {
		err = n.dir.squeeze(n.rec, want, save)
		n.fs.changed("limit lowered", n.dir.path)
	} else {
		err = n.raise(shown, want)
		n.fs.changed("limit raised", n.dir.path)
	}
	if now, readErr := n.dir.limits(); readErr == nil {
		n.setLadder(now)
	}
	return err
}

// raise lifts the limits of n from shown to want.
func (n *node) raise(shown, want limits) error {
	n.rec.intendLimits(shown, want)
	if err := n.save(); err != nil {
		return err
	}
	return n.dir.setLimits(shown, want)
}

// relative is path without the leading directory base.
func relative(base, path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, base), "/")
}
