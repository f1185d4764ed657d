package cgroup

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// verdictLimit is a limit that no container fits under.
	verdictLimit = mib
	// verdictWait is how long the kernel's own kill is given; it takes about a
	// tenth of a second.
	verdictWait = time.Second
)

// undisturbed runs f on a thread that no signal is delivered to. With a signal
// pending, and the Go runtime sends itself some, a write of memory.max returns
// success before the kernel has reclaimed or killed anything.
func undisturbed(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	err := f()
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
}

// Kill has the kernel kill the whole container for lack of memory, so that
// memory.events, the kernel log, the runtime and the kubelet all tell the same
// story; cgroup.kill stands behind it.
func (c *v2) Kill(ctx context.Context) error {
	end, err := c.begin(ctx, "kill")
	if err != nil {
		return ignoreGone(err)
	}
	defer end()
	c.killing.Store(true)
	defer c.killing.Store(false)
	c.quiet.Store(true)
	if err = c.condemn(); err == nil {
		err = c.verdict(ctx)
	}
	err = errors.Join(err, c.endRest(ctx), c.awaitFreed(ctx), c.revive())
	c.ownKills()
	if err := ignoreGone(err); err != nil {
		return fmt.Errorf("kill %s: %w", c.path, err)
	}
	c.fs.changed("killed", c.path)
	return nil
}

// ownKills takes note of the kernel kills that we ordered, before their notices
// could be taken for escapes.
func (c *v2) ownKills() {
	n, err := c.Counters()
	if err != nil {
		return // it is gone, and nobody counts
	}
	c.mu.Lock()
	c.kills = max(c.kills, n.OOMKill)
	c.mu.Unlock()
}

// condemn ends every exemption: tasks with a score of −1000 would survive.
// Until revive, nobody else touches the level; its mu is free for those who
// only pass by.
func (c *v2) condemn() error {
	l := c.self
	owned := c.own(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scores.doomed = true
	if err := errors.Join(owned, l.own()); err != nil {
		return err
	}
	return l.settle()
}

// verdict makes the container exceed its limit. It needs no thaw.
func (c *v2) verdict(ctx context.Context) error {
	l := c.self
	if n, err := l.dir.number(fileCurrent); err != nil || n <= 2*verdictLimit {
		return err // too small to be killed for its size
	}
	if err := c.expose(); err != nil {
		return err
	}
	for _, w := range []struct{ name, value string }{
		{fileSwapMax, "0"}, // else it would be swapped out instead
		{fileOOMGroup, "1"},
		{fileMax, bytesOf(verdictLimit)},
	} {
		if err := l.force(w.name, w.value); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(verdictWait)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if dead, err := c.dead(ctx); dead || err != nil {
			return err
		}
		if err := l.force(fileMax, bytesOf(verdictLimit)); err != nil {
			return err
		}
	}
	return nil
}

// force writes a file of the record, if the kernel has it.
func (l *level) force(name, value string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	shown, err := l.dir.value(name)
	if errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if name == fileMax {
		shown = l.limit.String()
	}
	l.rec.intend(name, shown, value)
	if err := l.save(); err != nil {
		return err
	}
	return undisturbed(func() error { return l.dir.write(name, value) })
}

// expose gives those that are exempt of their own a score that can be killed:
// none of them comes back.
func (c *v2) expose() error {
	pids, err := c.Pids()
	if err != nil {
		return err
	}
	board := scoreboard{c.fs.proc}
	for _, pid := range pids {
		if adj, err := board.read(pid); err == nil && adj == scoreExempt {
			_ = board.write(pid, 0) // cgroup.kill does not mind a score
		}
	}
	return nil
}

// dead reports, after a short wait, whether no process is left.
func (c *v2) dead(ctx context.Context) (bool, error) {
	b, err := c.self.dir.read(fileCgEvents)
	if err != nil {
		return false, err
	}
	e, err := parseCgroupEvents(b)
	if err != nil || !e.populated {
		return true, err
	}
	pause(ctx, killPoll)
	return false, nil
}

// endRest ends what the verdict left, frozen or not.
func (c *v2) endRest(ctx context.Context) error {
	for ctx.Err() == nil {
		if dead, err := c.dead(ctx); dead || err != nil {
			return err
		}
		if err := c.killAll(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// killAll sends SIGKILL to everything. Frozen tasks of version 2 die of it
// without a thaw.
func (c *v2) killAll() error {
	err := c.self.dir.write(fileKill, "1")
	if !errors.Is(err, unix.ENOENT) || errors.Is(err, ErrGone) {
		return err
	}
	pids, err := c.Pids() // before 5.14
	for _, pid := range pids {
		if kill := unix.Kill(pid, unix.SIGKILL); kill != nil && !errors.Is(kill, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("kill process %d: %w", pid, kill))
		}
	}
	return err
}

// awaitFreed waits until the memory of the dead is back: anonymous memory goes
// with its process, what is left is cache and shared memory.
func (c *v2) awaitFreed(ctx context.Context) error {
	last := ^uint64(0)
	for ctx.Err() == nil {
		n, err := c.self.dir.number(fileCurrent)
		if err != nil || n >= last {
			return err
		}
		last = n
		pause(ctx, killPoll)
	}
	return ctx.Err()
}

// revive puts back what the kill changed: the directory may be used again.
func (c *v2) revive() error {
	l := c.self
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scores.doomed, l.scores.resting = false, false
	if l.rec == nil {
		return nil
	}
	for _, s := range l.stakes {
		s.borrowed, s.granted, s.slack = 0, 0, 0
	}
	c.wantFrozen.Store(false)
	var err error
	if l.rec.Freeze != nil {
		if err = l.fs.letGo(l.rec.Freeze); err == nil {
			l.rec.Freeze = nil
		}
	}
	c.setHeld(false)
	c.quiet.Store(false)
	err = errors.Join(err, l.undoLimits(true))
	if l.held() {
		return errors.Join(err, l.arm(time.Now()))
	}
	return errors.Join(err, l.disown())
}
