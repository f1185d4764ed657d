package arbiter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

// judge carries the verdict out.
func (c *Case) judge(ctx context.Context) event {
	ctx = context.WithoutCancel(ctx)
	c.log.Info("verdict", "rule", c.ruleName(), "verdict", c.st.verdict, "why", c.st.why)
	var err error
	switch c.st.verdict {
	case policy.Kill:
		err = c.kill(ctx)
	case policy.Resume:
		err = c.resume(ctx)
	case policy.None:
		err = c.letRun(ctx)
	default:
		err = fmt.Errorf("verdict %q cannot be carried out here", c.st.verdict)
	}
	if errors.Is(err, errNobody) || errors.Is(err, cgroup.ErrGone) && c.st.verdict != policy.Kill {
		return event{kind: evGone, why: "the container vanished before its verdict, " + string(c.st.verdict)}
	}
	if errors.Is(err, cgroup.ErrGone) {
		err = nil // dead is dead
	}
	ev := event{kind: evVerdict, err: err, at: time.Now()}
	if err == nil && c.st.verdict == policy.Resume && c.e.fs.Version() == 1 && c.of.ID != "" {
		// containerd's shim has its own eventfd on the limit (version 1).
		ev.why = c.st.why + "; its runtime has seen the limit and will call its end OOMKilled, whenever and however it ends"
	}
	return ev
}

// errNobody says that there was nobody left to kill: somebody else ended the
// container, and neither case nor runtime may be told of a kill of ours.
var errNobody = errors.New("no process is left")

// kill ends the container, or its largest process.
func (c *Case) kill(ctx context.Context) error {
	if pids, err := c.ct.cg.Pids(); errors.Is(err, cgroup.ErrGone) || err == nil && len(pids) == 0 {
		return errNobody
	}
	v := c.st.rule.Verdict
	ctx, cancel := context.WithTimeout(ctx, killTimeout+v.TermGrace)
	defer cancel()
	if v.TermGrace > 0 && c.st.operator == "" {
		c.terminate(ctx, v)
	}
	if v.Kill == policy.KillLargest && c.st.operator == "" {
		return c.killLargest(ctx)
	}
	before, _ := c.ct.cg.Counters()
	pids, _ := c.ct.cg.Pids()
	c.log.Info("killing container", "processes", len(pids))
	if err := c.ct.cg.Kill(ctx); err != nil {
		return err
	}
	if after, err := c.ct.cg.Counters(); err != nil || after.OOMKill == before.OOMKill {
		c.e.announceOOM(ctx, c.ct)
	}
	return c.afterwards(ctx)
}

// terminate gives the container the notice that the policy grants: room to
// run in, SIGTERM, and time to leave.
func (c *Case) terminate(ctx context.Context, v policy.Verdict) {
	ctx, cancel := context.WithTimeout(ctx, v.TermGrace)
	defer cancel()
	if n, ok := c.rec.Facts.Limit.Bytes(); ok {
		if err := c.borrow(ctx, v.GraceRaise().Of(n)); err != nil {
			c.log.Warn("no room for a graceful end", "error", err)
		}
	}
	if err := c.ct.cg.Thaw(ctx); err != nil {
		c.log.Warn("thaw for a graceful end", "error", err)
		return
	}
	c.signalInit(unix.SIGTERM)
	if c.leaves(ctx) {
		return
	}
	// Standing still, it cannot use up its notice to get itself killed by the
	// kernel before our kill comes.
	fctx, stop := context.WithTimeout(context.WithoutCancel(ctx), freezeTimeout)
	defer stop()
	if err := c.ct.cg.Freeze(fctx); err != nil && !errors.Is(err, cgroup.ErrGone) {
		c.log.Warn("freeze after the notice", "error", err)
	}
}

// leaves waits until the container is empty. It does not wait on once the time
// is over or the limit is met again.
func (c *Case) leaves(ctx context.Context) bool {
	t := time.NewTicker(pollExit)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case ev := <-c.inbox:
			if ev.kind != evGone {
				return false
			}
		case <-t.C:
			if pids, err := c.ct.cg.Pids(); err != nil || len(pids) == 0 {
				return true
			}
		}
	}
}

// signalInit signals the container's first process, or each of its processes
// where no runtime says which one is first.
func (c *Case) signalInit(sig unix.Signal) {
	pids := []int{c.of.Pid}
	if c.of.Pid == 0 {
		pids, _ = c.ct.cg.Pids()
	}
	for _, pid := range pids {
		if err := c.e.signal(c.ct.cg, pid, sig); err != nil {
			c.log.Warn("signal", "signal", unix.SignalName(sig), "pid", pid, "error", err)
		}
	}
}

// killLargest kills the process that holds the most memory and lets the
// others run on. A frozen process dies at the thaw, before it runs.
func (c *Case) killLargest(ctx context.Context) error {
	pid, err := c.e.largest(c.ct.cg)
	if err != nil {
		return err
	}
	c.log.Info("killing largest process", "pid", pid)
	if err := c.e.signal(c.ct.cg, pid, unix.SIGKILL); err != nil {
		return err
	}
	if err := c.ct.cg.Thaw(ctx); err != nil {
		return err
	}
	if err := c.e.waitExit(ctx, pid); err != nil {
		return err
	}
	return c.borrow(ctx, 0)
}

// resume lets the container go on with more room.
func (c *Case) resume(ctx context.Context) error {
	v := c.st.rule.Verdict
	held := time.Since(c.st.heldAt)
	if w := c.st.rule.ResumeWithin; w > 0 && held > w && c.st.operator == "" && !c.st.heldAt.IsZero() {
		return fmt.Errorf("held for %s, longer than resume-within = %s", held.Round(time.Millisecond), w)
	}
	ctx, cancel := context.WithTimeout(ctx, thawTimeout)
	defer cancel()
	size := v.Raise
	if !c.st.raise.IsZero() {
		size = c.st.raise
	}
	if n, ok := c.rec.Facts.Limit.Bytes(); ok && !size.IsZero() {
		if err := c.grant(ctx, size.Of(n), v.RaiseFor); err != nil {
			return err
		}
	} else if err := c.borrow(ctx, 0); err != nil {
		return err
	}
	c.e.resumed(c.ct)
	if err := c.ct.cg.Thaw(ctx); err != nil {
		return err
	}
	return nil
}

// grant turns what was borrowed into room that outlives the case.
//
// Each resume adds its share of the original limit to what earlier ones
// granted: more room each time, but not compounding.
func (c *Case) grant(ctx context.Context, more uint64, raiseFor time.Duration) error {
	if err := c.e.budgets.borrow(more); err != nil {
		c.e.metrics.refusals.WithLabelValues("borrowed").Inc()
		return err
	}
	granted := c.ct.granted + more
	if err := c.ct.cg.Grant(ctx, granted); err != nil {
		c.e.budgets.giveBack(more)
		return err
	}
	c.e.budgets.giveBack(c.borrowed)
	c.borrowed = 0
	c.mu.Lock()
	c.rec.RaisedBytes = granted
	c.mu.Unlock()
	c.e.granted(c.ct, granted)
	c.e.lowerAfter(c.ct, raiseFor)
	return nil
}

// letRun ends a case that leaves its container as it found it.
func (c *Case) letRun(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, thawTimeout)
	defer cancel()
	if err := c.borrow(ctx, 0); err != nil {
		return err
	}
	if !c.st.frozen {
		return nil
	}
	return c.ct.cg.Thaw(ctx)
}

// afterwards gives back what was lent once the memory is free again. A cgroup
// that went with its last process has nothing to give back.
func (c *Case) afterwards(ctx context.Context) error {
	err := c.borrow(ctx, 0)
	if err == nil {
		err = c.ct.cg.Restore(ctx)
	}
	if err == nil {
		c.e.ungranted(c.ct)
		err = c.ct.cg.Thaw(ctx)
	}
	return err
}

// giveBack undoes everything, so that the kernel decides as it would have
// without us.
func (c *Case) giveBack(ctx context.Context) event {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	err := c.ct.cg.Disarm(ctx)
	if err != nil && !errors.Is(err, cgroup.ErrGone) {
		c.log.Error("disarm", "error", err)
		_, err = c.e.fs.Release(ctx, cgroup.ReleaseOptions{Path: c.of.Cgroup, Only: true, Force: true})
		if err != nil {
			c.log.Error("release", "error", err)
		}
	}
	c.e.ungranted(c.ct)
	return event{kind: evGiven, at: time.Now()}
}
