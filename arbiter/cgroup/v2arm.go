package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

// Arm guards c's own limit and those of the ancestors that bind it.
func (c *v2) Arm(ctx context.Context, o ArmOptions) (Status, error) {
	end, err := c.begin(ctx, "arm")
	if err != nil {
		return c.Status(), err
	}
	defer end()
	if c.path == "/" {
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
	binding, err := c.binding()
	if err != nil {
		return c.Status(), err
	}
	for _, l := range slices.Backward(binding) {
		if o.Hold && (l == c.self || l.limited()) {
			err = c.own(l)
		}
		if err = errors.Join(err, l.join(c, o.Hold, o.AlwaysGuard)); err != nil {
			if !was {
				err = errors.Join(err, c.disarm(context.WithoutCancel(ctx)))
			}
			return c.Status(), fmt.Errorf("arm %s: %w", c.path, err)
		}
	}
	if err := c.listen(); err != nil {
		return c.Status(), errors.Join(fmt.Errorf("arm %s: %w", c.path, err), c.disarm(context.WithoutCancel(ctx)))
	}
	kills, _ := c.Counters()
	missing := append(c.lacks(o), c.fs.watchUsage(c, o)...)
	c.mu.Lock()
	c.opts, c.armed, c.kills, c.missing = o, true, kills.OOMKill, missing
	c.mu.Unlock()
	return c.Status(), nil
}

// binding lists the levels whose limits are guarded for c, from the inside
// out: its own, its parent's (in a one-container pod that is hit first, for
// the pause process counts too), and the tightest. An ancestor further out,
// like the one that holds all pods, binds them all: whose fault it is when it
// is full is the kernel's to decide.
func (c *v2) binding() ([]*level, error) {
	tightest, limit := -1, policy.NoLimit
	for i, l := range c.chain {
		if !l.dir.has(fileMax) {
			continue
		}
		shown, err := l.readLimit(fileMax)
		if err != nil {
			return nil, err
		}
		if base := l.base(shown.String()); base.Less(limit) {
			tightest, limit = i, base
		}
	}
	var levels []*level
	for i, l := range c.chain {
		if i == 0 || (i == 1 || i == tightest) && l.dir.has(fileMax) {
			levels = append(levels, l)
		}
	}
	return levels, nil
}

// own claims the record of one of c's levels. Its processes were those of the
// next owned level further out: what that one's record says of their scores,
// and why they are exempt, comes along. No mu is held.
func (c *v2) own(l *level) error {
	l.mu.Lock()
	owned := l.rec != nil
	l.mu.Unlock()
	if owned {
		return nil
	}
	outer := c.chain[slices.Index(c.chain, l)+1:]
	for _, o := range slices.Backward(outer) {
		o.mu.Lock()
		defer o.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rec != nil {
		return nil
	}
	if err := l.own(); err != nil {
		return err
	}
	for _, o := range outer {
		if o.rec != nil {
			return l.inherit(o)
		}
	}
	return nil
}

// lacks tells what is not covered.
func (c *v2) lacks(o ArmOptions) (missing []string) {
	if !o.Hold {
		return nil
	}
	var u Usage
	if err := c.limitsInto(&u); err == nil && u.Limit == policy.NoLimit {
		missing = append(missing, "no memory limit here or at any ancestor: nothing can be hit")
	}
	if !mayExempt() {
		missing = append(missing, "no CAP_SYS_RESOURCE: the limit is raised while the container is frozen; one large populate or mlock is not covered")
	}
	if !c.self.dir.has(fileLocalEvents) {
		missing = append(missing, "the kernel has no memory.events.local (5.2): limits are not seen")
	}
	if c.swaps() {
		missing = append(missing, "it may swap: it thrashes before its limit is hit; a pressure trigger sees that")
	}
	return missing
}

// swaps reports whether c can use swap that exists.
func (c *v2) swaps() bool {
	v, err := c.self.dir.value(fileSwapMax)
	if err != nil || v == "0" {
		return false
	}
	b, err := os.ReadFile(c.fs.proc + "/swaps")
	return err == nil && strings.Count(string(b), "\n") > 1
}

// listen watches cgroup.events: freezing behind our back, and the end.
func (c *v2) listen() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events != nil {
		return nil
	}
	f, err := c.self.dir.open(fileCgEvents, unix.O_RDONLY)
	if err != nil {
		return err
	}
	if c.last, err = readCgroupEvents(f); err != nil {
		f.Close()
		return err
	}
	c.events = f
	c.fs.sampler.add(aliveKey{c}, c.lookAlive)
	return c.fs.watch.add(int(f.Fd()), epollPri, c.stateChanged)
}

// aliveKey is a cgroup's key on the sampler for lookAlive.
type aliveKey struct{ c *v2 }

// lookAlive tells of the directory's removal, of which the kernel does not: an
// open file of a removed cgroup sends no notice. It is seen soon after the last
// process left.
func (c *v2) lookAlive(now time.Time) time.Duration {
	if !c.self.dir.alive() {
		c.unlisten()
		c.fs.emitSoon(Event{Kind: EventGone, Cgroup: c, At: now, Why: "the cgroup was removed"})
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.populated {
		return sampleLatest
	}
	return time.Second
}

func (c *v2) unlisten() {
	c.mu.Lock()
	f := c.events
	c.events = nil
	c.mu.Unlock()
	c.fs.sampler.remove(aliveKey{c})
	if f != nil {
		c.fs.watch.remove(int(f.Fd()))
		f.Close()
	}
}

func readCgroupEvents(f *os.File) (cgroupEvents, error) {
	b := make([]byte, 256)
	n, err := f.ReadAt(b, 0)
	if n == 0 && err != nil {
		return cgroupEvents{}, fmt.Errorf("read cgroup.events: %w", err)
	}
	return parseCgroupEvents(b[:n])
}

// stateChanged runs on the watching goroutine.
func (c *v2) stateChanged() {
	c.mu.Lock()
	f := c.events
	c.mu.Unlock()
	if f == nil {
		return
	}
	e, err := readCgroupEvents(f)
	if err != nil { // removed
		c.fs.watch.remove(int(f.Fd()))
		c.fs.sampler.hurry(aliveKey{c}, 0)
		return
	}
	c.mu.Lock()
	last := c.last
	c.last = e
	c.mu.Unlock()
	if last.populated && !e.populated {
		c.fs.emit(Event{Kind: EventEmpty, Cgroup: c, At: time.Now()})
		c.fs.sampler.hurry(aliveKey{c}, sampleSoonest)
	}
	if e.frozen == c.wantFrozen.Load() || c.killing.Load() || !c.overruled() {
		return
	}
	switch {
	case !e.frozen: // whatever was seen last: notices coalesce
		go c.thawedByOthers()
	case !last.frozen:
		c.fs.emit(Event{Kind: EventFreezerChanged, Cgroup: c, At: time.Now(), Why: "somebody else made cgroup.freeze=1"})
	}
}

// thawedByOthers ends a hold that somebody else has ended: what runs is guarded
// again, and its limit is news.
func (c *v2) thawedByOthers() {
	l := c.self
	l.mu.Lock()
	thawed := c.wantFrozen.Load() && c.overruled() && l.rec != nil && l.rec.Freeze != nil && !l.scores.doomed
	if thawed {
		c.wantFrozen.Store(false)
		l.rec.Freeze = nil
		l.complain(l.save())
	}
	l.mu.Unlock()
	if !thawed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	l.complain(c.ready(ctx))
	c.setHeld(false)
	c.quiet.Store(false)
	c.fs.emitSoon(Event{Kind: EventFreezerChanged, Cgroup: c, At: time.Now(), Why: "somebody else thawed it while it was held"})
}

// overruled reports whether cgroup.freeze says other than what we want. While
// it does not, the state only passes: one of the frozen tasks was killed.
func (c *v2) overruled() bool {
	v, err := c.self.dir.value(fileFreeze)
	return err == nil && (v == "1") != c.wantFrozen.Load()
}

// Disarm undoes everything: the scores first, so that the kernel may kill again
// before anything runs again, then the limits, and the thaw. A limit that usage
// does not fit under comes last.
func (c *v2) Disarm(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("disarm %s: %w", c.path, ctx.Err())
	}
	return c.disarm(ctx)
}

// disarm is Disarm within a turn.
func (c *v2) disarm(ctx context.Context) error {
	c.fs.unwatchUsage(c)
	c.unlisten()
	c.quiet.Store(true)
	defer c.quiet.Store(false)
	c.killing.Store(true) // what the kernel does from here on is no escape
	defer c.killing.Store(false)
	var errs []error
	for _, l := range c.chain {
		errs = append(errs, l.yield(c))
	}
	for _, l := range slices.Backward(c.chain) {
		errs = append(errs, l.leave(ctx, c))
	}
	errs = append(errs, ignoreGone(c.selfThaw()))
	for _, l := range c.chain {
		errs = append(errs, l.finish())
	}
	for _, l := range slices.Backward(c.chain[1:]) {
		l.mu.Lock()
		errs = append(errs, l.rescan()) // c's processes are theirs again
		l.mu.Unlock()
	}
	c.mu.Lock()
	c.opts, c.armed, c.held, c.missing, c.lent = ArmOptions{}, false, false, nil, Status{}
	c.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("disarm %s: %w", c.path, err)
	}
	return nil
}
