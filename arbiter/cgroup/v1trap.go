package cgroup

import (
	"context"
	"errors"
	"fmt"
)

// A Trapper can let frozen tasks run into the traps of a tracer.
//
// A task in the v1 freezer does not notice PTRACE_INTERRUPT: it traps once the
// freezer is opened, on its way out of the kernel and before it runs any code
// of its own. A task that cgroup v2 froze traps inside its freeze, and needs
// nothing of this.
type Trapper interface {
	// Trapped opens the freezer of a held cgroup, calls f, which waits until
	// every task is in its trap, and closes the freezer again, whatever f
	// returned and even if ctx is done. It returns once all stands still. If
	// the freezer does not close, the cgroup is let go as a failed Freeze does,
	// and the error is ErrNotHeld.
	Trapped(ctx context.Context, f func(context.Context) error) error
}

// ErrNotHeld says that tasks run which were meant to stand still.
var ErrNotHeld = errors.New("the cgroup does not stand still")

var _ Trapper = (*v1)(nil)

// Trapped is of Trapper.
func (c *v1) Trapped(ctx context.Context, f func(context.Context) error) error {
	end, err := c.begin(ctx, "trap tasks of")
	if err != nil {
		return err
	}
	defer end()
	c.self.mu.Lock()
	var r FreezeRecord
	if c.self.rec != nil && c.self.rec.Freeze != nil {
		r = *c.self.rec.Freeze
	}
	c.self.mu.Unlock()
	if !c.stopping.Load() || r.Kind == "" {
		return fmt.Errorf("trap tasks of %s: %w", c.path, ErrNotHeld)
	}
	if r.Kind != freezeV1 && r.Kind != freezeOwn {
		return f(ctx) // cgroup.freeze and SIGSTOP do not hide tasks from a tracer
	}
	g, err := c.fs.openGate(r.Kind, r.Path)
	if err != nil {
		return fmt.Errorf("trap tasks of %s: %w", c.path, err)
	}
	defer g.dir.close()
	if err := c.quietly(func() error { return g.request(false) }); err != nil {
		return fmt.Errorf("trap tasks of %s: %w", c.path, err)
	}
	c.fs.changed("opened for traps", c.path)
	ferr := f(ctx)
	if err := c.shut(ctx, g); err != nil {
		return errors.Join(ferr, fmt.Errorf("freeze %s behind its traps: %w: %w", c.path, ErrNotHeld, err))
	}
	return ferr
}

// shut freezes again what Trapped opened. Trapped tasks count as frozen. If a
// tracer died, its tasks run: they freeze as they did the first time, with a
// nudge for those that went to sleep at the limit.
func (c *v1) shut(ctx context.Context, g gate) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), freezeWait)
	defer cancel()
	n := c.nudger()
	err := c.quietly(func() error {
		if err := g.request(true); err != nil {
			return err
		}
		return n.until(ctx, g.frozen)
	})
	back := n.back()
	if err == nil {
		c.fs.changed("closed behind traps", c.path)
		return nil
	}
	err = errors.Join(err, back, c.letRun())
	c.stopping.Store(false)
	c.setState(Armed)
	c.recheckSoon()
	return err
}
