package cgroup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killFreeze bounds the attempt to freeze before a kill.
	killFreeze = 300 * time.Millisecond
	// killPoll is how often a kill looks who is left.
	killPoll = 2 * time.Millisecond
	// killRest is the anonymous memory that may stay charged to an empty
	// cgroup: what processors have charged in advance and not given back.
	killRest = 1 << 20
)

// Kill sends SIGKILL to everything, then thaws: a frozen task dies at the thaw
// without running again, whereas one that is thawed first touches hundreds of
// pages. Where nothing is frozen yet it freezes first, so that a fork bomb
// stands still while it is killed. Tasks asleep at the limit die at once.
func (c *v1) Kill(ctx context.Context) error {
	end, err := c.begin(ctx, "kill")
	if errors.Is(err, ErrGone) {
		return nil // nothing is left to kill
	}
	if err != nil {
		return err
	}
	defer end()
	if !c.stopping.Load() {
		c.stopping.Store(true)
		short, cancel := context.WithTimeout(ctx, killFreeze)
		if err := c.freeze(short); err != nil {
			c.fs.log.Debug("kill without a freeze", "cgroup", c.path, "error", err)
		}
		cancel()
	}
	err = c.killAll(ctx)
	c.stopping.Store(false)
	c.setState(Armed)
	if err == nil {
		c.fs.changed("killed", c.path)
		err = c.memoryBack(ctx)
	}
	if err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("kill %s: %w", c.path, err)
	}
	return nil
}

// killAll kills until nobody is left.
func (c *v1) killAll(ctx context.Context) error {
	for {
		pids, err := c.Pids()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := c.signal(pid, unix.SIGKILL); err != nil {
				return errors.Join(err, c.letDie())
			}
		}
		if err := c.letDie(); err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if pause(ctx, killPoll); ctx.Err() != nil {
			return fmt.Errorf("%d processes are left: %w", len(pids), ctx.Err())
		}
	}
}

// letDie thaws, a freeze that somebody else made included: nobody dies in it.
func (c *v1) letDie() error {
	c.self.mu.Lock()
	if r := c.self.rec; r != nil && r.Freeze != nil {
		r.Freeze.Foreign = false
	}
	c.self.mu.Unlock()
	return c.letRun()
}

// memoryBack waits until the dead processes' memory is uncharged: the kernel
// frees it while they exit, and some of it later. Page cache stays.
func (c *v1) memoryBack(ctx context.Context) error {
	for {
		stat, err := c.self.dir.memoryStat()
		if err != nil {
			return err
		}
		if stat.rss <= killRest {
			return nil
		}
		if pause(ctx, killPoll); ctx.Err() != nil {
			return fmt.Errorf("%d bytes are not back: %w", stat.rss, ctx.Err())
		}
	}
}
