package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// closeWait bounds the disarming that Close does without a context.
const closeWait = 10 * time.Second

// Arm guards c and every ancestor with a limit: in a one-container pod the
// pod's limit equals the container's and is hit first, because the pause
// process counts too.
func (c *v1) Arm(ctx context.Context, o ArmOptions) (Status, error) {
	end, err := c.begin(ctx, "arm")
	if err != nil {
		return c.Status(), err
	}
	defer end()
	if c.self.dir.path == "/" {
		return c.Status(), fmt.Errorf("arm /: the root cgroup has no limit: %w", ErrNotSupported)
	}
	c.mu.Lock()
	before, was := c.opts, c.armed
	c.mu.Unlock()
	if was && before.Hold && !o.Hold {
		if err := c.disarm(ctx); err != nil {
			return c.Status(), err
		}
		was = false
	}
	for i, n := range slices.Backward(c.chain) {
		if err := n.join(c, o.Hold, c.flaggedAbove(i)); err != nil {
			if !was {
				err = errors.Join(err, c.disarm(context.WithoutCancel(ctx)))
			}
			return c.Status(), fmt.Errorf("arm %s: %w", c.path, err)
		}
	}
	c.mu.Lock()
	c.opts, c.armed = o, true
	c.mu.Unlock()
	c.watchProcesses()
	return c.describe(c.fs.watchUsage(c, o)), nil
}

// flaggedAbove reports whether an ancestor of chain[i] has a flag of ours, that
// chain[i] may have inherited at its creation.
func (c *v1) flaggedAbove(i int) bool {
	self := c.chain[i].dir.path
	for _, n := range c.chain[i+1:] {
		if n.lends(self) {
			return true
		}
	}
	return false
}

// lends reports whether a flag of 1 at path, below n, would be n's.
func (n *node) lends(path string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rec == nil || !n.rec.Inherited {
		return false
	}
	return !slices.Contains(n.rec.Flagged, relative(n.dir.path, path))
}

// describe works out the status of an armed cgroup; missing is what is known to
// be lacking already.
func (c *v1) describe(missing []string) Status {
	counters, countErr := c.Counters()
	usage, _ := c.self.dir.number(fileUsage)
	freezer, err := c.pickFreezer()
	limited := c.limited()
	c.mu.Lock()
	defer c.mu.Unlock()
	st := Status{State: Watched, Missing: missing, Borrowed: c.status.Borrowed, Granted: c.status.Granted}
	if c.opts.Hold {
		st.State = Armed
		st.Freezer = freezer.describe()
		if err != nil {
			st.Missing = append(st.Missing, fmt.Sprintf("no freezer: %v", err))
		}
		if freezer.Kind == freezeStop {
			st.Missing = append(st.Missing, "no freezer cgroup: processes are stopped with SIGSTOP, which their parents can see")
		}
		if !limited {
			st.Missing = append(st.Missing, "no memory limit here or at any ancestor: nothing can be hit")
		}
		if len(st.Missing) > 0 {
			st.State = Partial
		}
	}
	if c.stopping.Load() {
		st.State = HeldNow
	}
	if countErr == nil {
		c.oomed = counters.OOMKill
	}
	c.mark = usage
	c.status = st
	return st
}

// Disarm undoes everything, outermost first: the kernel may kill again before
// the tasks run again.
func (c *v1) Disarm(ctx context.Context) error {
	end, err := c.take(ctx, "disarm")
	if err != nil {
		return err
	}
	defer end()
	// The record of a directory that was removed went with it, but what its
	// ancestors lent must come back all the same.
	return c.disarm(ctx)
}

// disarm is Disarm within a turn.
func (c *v1) disarm(ctx context.Context) error {
	c.unwatchProcesses()
	c.fs.unwatchUsage(c)
	var errs []error
	for _, n := range slices.Backward(c.chain) {
		errs = append(errs, n.leave(c))
	}
	for _, n := range c.chain {
		errs = append(errs, n.finish(ctx))
	}
	c.stopping.Store(false)
	c.mu.Lock()
	c.opts, c.armed = ArmOptions{}, false
	c.status = Status{State: Unarmed}
	c.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("disarm %s: %w", c.path, err)
	}
	return nil
}
