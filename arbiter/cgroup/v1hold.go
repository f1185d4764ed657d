package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// freezePoll is how often the freezer is asked whether it is done.
	freezePoll = 100 * time.Microsecond
	// nudgeAfter gives running tasks the time to freeze by themselves before
	// the first nudge makes a page of room, which they could take.
	nudgeAfter = 400 * time.Microsecond
	// nudgeEvery is when the nudge is repeated: wake-ups can be lost.
	nudgeEvery = 2 * time.Millisecond
	// nudgeRange is how many nudges one entry in the record covers.
	nudgeRange = 16
)

// Freeze stops every task. One that sleeps at the limit cannot freeze: it is
// woken by raising the limit by 4096 bytes, and freezes on its way back to user
// space, before it touches a page. Then the limit is put back. If the freezer
// does not get there, everything is undone: a freezer left in FREEZING makes
// the container runtime spin.
func (c *v1) Freeze(ctx context.Context) error {
	end, err := c.begin(ctx, "freeze")
	if err != nil {
		return err
	}
	defer end()
	if c.stopping.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freezeWait)
	defer cancel()
	c.stopping.Store(true)
	if err := c.freeze(ctx); err != nil {
		c.stopping.Store(false)
		c.recheckSoon()
		return fmt.Errorf("freeze %s: %w", c.path, err)
	}
	c.setState(HeldNow)
	c.fs.changed("frozen", c.path)
	c.thawCondemned()
	return nil
}

func (c *v1) freeze(ctx context.Context) error {
	c.self.mu.Lock()
	err := c.self.claim()
	c.self.mu.Unlock()
	if err != nil {
		return err
	}
	r, err := c.pickFreezer()
	if err != nil {
		return err
	}
	n := c.nudger()
	err = c.quietly(func() error { return c.stop(ctx, &r, n) })
	back := n.back()
	if err != nil {
		return errors.Join(err, back, c.letRun())
	}
	return nil // the limit that could not be put back is on the record
}

// stop runs the freezer of r until everything stands still.
func (c *v1) stop(ctx context.Context, r *FreezeRecord, n *nudger) error {
	switch r.Kind {
	case freezeStop:
		return n.until(ctx, func() (bool, error) {
			if fresh, err := c.stopProcesses(r); err != nil || fresh > 0 {
				return false, err
			}
			return c.allStopped()
		})
	case freezeOwn:
		g, err := c.enterOwnFreezer(ctx, r)
		if err != nil {
			return err
		}
		defer g.dir.close()
		return n.until(ctx, g.frozen)
	default:
		g, err := c.fs.openGate(r.Kind, r.Path)
		if err != nil {
			return err
		}
		defer g.dir.close()
		if r.Foreign, err = g.requested(); err != nil {
			return err
		}
		if err := c.saveFreeze(r); err != nil {
			return err
		}
		if err := g.request(true); err != nil {
			return err
		}
		c.fs.changed("freezing", c.path)
		return n.until(ctx, g.frozen)
	}
}

// saveFreeze writes r into the record, before the freezer is touched.
func (c *v1) saveFreeze(r *FreezeRecord) error {
	c.self.mu.Lock()
	defer c.self.mu.Unlock()
	saved := *r
	c.self.rec.Freeze = &saved
	return c.self.save()
}

// letRun undoes what the record says about freezing.
func (c *v1) letRun() error {
	c.self.mu.Lock()
	defer c.self.mu.Unlock()
	if c.self.rec == nil || c.self.rec.Freeze == nil {
		return nil
	}
	if err := c.quietly(func() error { return c.fs.letGo(c.self.rec.Freeze) }); err != nil {
		return err
	}
	c.fs.changed("thawed", c.path)
	c.self.rec.Freeze = nil
	return c.self.save()
}

// Thaw lets the tasks run again, and puts back a limit that stayed nudged.
func (c *v1) Thaw(ctx context.Context) error {
	end, err := c.begin(ctx, "thaw")
	if err != nil {
		return err
	}
	defer end()
	if !c.stopping.Load() {
		return nil
	}
	for _, n := range c.chain {
		if err := n.settleNudge(); err != nil && !errors.Is(err, ErrUsage) {
			return fmt.Errorf("thaw %s: %w", c.path, err)
		}
	}
	// From the thaw on, whoever goes to sleep at a limit is news.
	c.stopping.Store(false)
	if err := c.letRun(); err != nil {
		c.stopping.Store(true)
		return fmt.Errorf("thaw %s: %w", c.path, err)
	}
	c.setState(Armed)
	c.recheckSoon()
	return nil
}

func (c *v1) setState(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == Armed && len(c.status.Missing) > 0 {
		s = Partial
	}
	c.status.State = s
}

// A nudger wakes out-of-memory sleepers while a freezer waits for them.
type nudger struct {
	c       *v1
	touched map[*node]limits // limits to put back
}

func (c *v1) nudger() *nudger { return &nudger{c: c, touched: map[*node]limits{}} }

// until polls done, and nudges as long as something sleeps at a limit.
func (n *nudger) until(ctx context.Context, done func() (bool, error)) error {
	next := time.Now().Add(nudgeAfter)
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if now := time.Now(); !now.Before(next) {
			next = now.Add(nudgeEvery)
			if err := n.nudge(); err != nil {
				return err
			}
		}
		nap(freezePoll)
	}
}

// nap blocks for less than the millisecond that is the runtime's shortest wait.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil)
}

// nudge raises the innermost limit that a sleeper of c can be woken by. A
// raise wakes everybody who sleeps at this cgroup, at an ancestor or below,
// whoever's limit was hit; the innermost one disturbs no other container.
func (n *nudger) nudge() error {
	for _, level := range n.c.chain {
		o, err := level.dir.oomControl()
		if err != nil {
			return err
		}
		if !o.underOOM {
			continue
		}
		done, err := n.raise(level)
		if done || err != nil {
			return err
		}
	}
	return nil
}

// raise lifts the limit of one level by the smallest step; false if it has
// none. The memory-and-swap limit must not be below and goes first.
func (n *nudger) raise(level *node) (bool, error) {
	level.mu.Lock()
	defer level.mu.Unlock()
	shown, err := level.dir.limits()
	if err != nil || shown.memory >= noLimitBytes {
		return false, err
	}
	if level.rec == nil {
		return false, nil // not ours: somebody else's guard, or none
	}
	before, again := n.touched[level]
	switch {
	case !again:
		n.touched[level] = shown
		level.busy.Add(1)
	case level.dir.setLimits(shown, before) == nil:
		shown = before // only a raise wakes, and so the room stays one page
	}
	want, err := level.dir.nudged(shown)
	if err != nil {
		return false, err
	}
	if err := level.noteNudge(shown, want); err != nil {
		return false, err
	}
	err = level.dir.setLimits(shown, want)
	if errors.Is(err, ErrUsage) {
		return true, nil // it grew meanwhile: the next nudge looks again
	}
	if err != nil {
		return false, err
	}
	n.c.fs.changed("limit nudged", level.dir.path)
	return true, nil
}

// nudged is the smallest raise of shown that the kernel takes. It refuses one
// that usage does not fit under, and an allocation of the kernel's own that
// may not fail is charged above the limit (__GFP_NOFAIL).
func (d *dir) nudged(shown limits) (limits, error) {
	usage, err := d.number(fileUsage)
	if err != nil {
		return limits{}, err
	}
	want := shown
	want.memory = max(shown.memory, usage) + nudgeBytes
	want.memsw = max(shown.memsw, want.memory)
	if shown.hasMemsw && shown.memsw < noLimitBytes {
		usage, err = d.number(fileMemswUsage)
		want.memsw = max(want.memsw, usage)
	}
	return want, err
}

// noteNudge puts the nudge on the record, together with those that may follow.
func (n *node) noteNudge(shown, want limits) error {
	fresh := n.rec.intendNudge(fileLimit, shown.memory, want.memory)
	if want.hasMemsw && want.memsw != shown.memsw {
		fresh = n.rec.intendNudge(fileMemsw, shown.memsw, want.memsw) || fresh
	}
	if !fresh {
		return nil
	}
	return n.save()
}

// intendNudge makes room for want in the nudges of a file, and reports whether
// the record changed. Values between shown and want are nobody else's: the
// kernel takes no limit below usage.
func (r *Record) intendNudge(name string, shown, want uint64) bool {
	f := r.Fields[name]
	if f != nil && f.ours(strconv.FormatUint(want, 10)) {
		return false
	}
	if f == nil || shown <= f.NudgeFrom || shown > f.NudgeTo {
		r.intend(name, strconv.FormatUint(shown, 10), strconv.FormatUint(want, 10))
		f = r.Fields[name]
		f.NudgeFrom = shown
	}
	f.NudgeTo = want + (nudgeRange-1)*nudgeBytes
	return true
}

// back puts the nudged limits back. Usage that grew by a page meanwhile makes
// the kernel refuse (EBUSY): then the nudge stays on the record, and the thaw
// and the disarm try again.
func (n *nudger) back() error {
	var errs []error
	for level, before := range n.touched {
		level.mu.Lock()
		shown, err := level.dir.limits()
		if err == nil && level.rec.originalLimits(shown) != shown {
			err = level.dir.setLimits(shown, before)
		}
		if err == nil {
			n.c.fs.changed("limit put back", level.dir.path)
		}
		n.c.fs.watch.settle()
		level.busy.Add(-1)
		level.mu.Unlock()
		if err != nil && !errors.Is(err, ErrUsage) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// settleNudge puts back a limit that stayed nudged.
func (n *node) settleNudge() error {
	n.mu.Lock()
	nudged := n.rec != nil && n.rec.Fields[fileLimit] != nil
	n.mu.Unlock()
	if !nudged {
		return nil
	}
	return n.apply()
}
