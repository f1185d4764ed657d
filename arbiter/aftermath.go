package arbiter

import (
	"context"
	"errors"
	"time"

	"github.com/arbiterd/arbiter/arbiter/action"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/report"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

const (
	pruneEvery  = 10 * time.Minute
	lowerRetry  = 5 * time.Second // until granted room is tried to be taken back again
	finishLimit = 2 * time.Hour   // for compression and uploads of one case
	announceFor = 2 * time.Second
)

// artifacts is where a step of the case puts its files. The first step may be
// the first to need the case's directory.
func (c *Case) artifacts(step string) action.Artifacts { return stepArtifacts{c, step} }

// shelf is where the case's artifacts lie, nil as long as it has no directory.
func (c *Case) shelf() action.Shelf {
	if book := c.book.Load(); book != nil {
		return book
	}
	return nil
}

type stepArtifacts struct {
	c    *Case
	step string
}

// Create opens a new artifact of the step.
func (a stepArtifacts) Create(name string) (action.Artifact, error) {
	book := a.c.book.Load()
	if book == nil {
		return nil, errors.New("create artifact " + name + ": the case has no directory: the state disk is full or cannot be written")
	}
	f, err := book.Artifacts(a.step).Create(name)
	if err != nil {
		return nil, err
	}
	return artifactFile{f}, nil
}

// artifactFile is a casebook's file as actions want it.
type artifactFile struct{ file *casebook.File }

// File is the open file, for writers that need seeks and holes.
func (f artifactFile) File() action.FileWriter { return f.file }

func (f artifactFile) Write(p []byte) (int, error) { return f.file.Write(p) }
func (f artifactFile) Close() error                { return f.file.Close() }
func (f artifactFile) Abort(why error)             { f.file.Abort(why) }

// setProgress publishes how far a long step is.
func (c *Case) setProgress(step string, done, total uint64) {
	text := step + " " + policy.FormatBytes(done)
	if total > 0 {
		text += " of " + policy.FormatBytes(total)
	}
	c.mu.Lock()
	was := c.progress
	c.progress = text
	c.mu.Unlock()
	if was != text {
		c.e.changed.signal()
	}
}

// afterwards does what need not be done while the container waits: sums,
// compression, uploads. The record is written again with what came of it.
func (e *Engine) afterwards(ctx context.Context, c *Case) {
	e.after.Go(func() {
		defer c.scribe.end()
		book := c.book.Load()
		if book == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
		defer cancel()
		stop := context.AfterFunc(e.afterCtx, cancel)
		defer stop()
		for _, f := range c.after {
			switch done, err := f(ctx); {
			case err != nil:
				c.log.Warn("work after the verdict", "error", err)
				c.write("work after the verdict failed", map[string]string{"error": err.Error()}, false)
			case done != "":
				c.write(done, nil, false)
			}
		}
		list, err := book.Finish(ctx)
		if err != nil {
			c.log.Warn("artifacts are not complete", "error", err)
		}
		c.mu.Lock()
		c.rec.Artifacts = list
		c.mu.Unlock()
		for _, a := range list {
			e.metrics.artifactBytes.Add(float64(a.Size))
		}
		c.write("artifacts finished", nil, true)
		if err := report.Keep(e.book, book); err != nil {
			c.log.Warn("write report", "error", err)
		}
		if err := book.Close(); err != nil {
			c.log.Warn("close case", "error", err)
		}
	})
}

// resumed counts a resume verdict, just before the container runs. Limits met
// from then on are news.
func (e *Engine) resumed(ct *container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ct.resumes++
	ct.again = nil
}

// granted notes how much room a container has above its original limit.
func (e *Engine) granted(ct *container, bytes uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ct.granted = bytes
}

// ungranted notes that a container has no more room than its own limit.
func (e *Engine) ungranted(ct *container) {
	e.mu.Lock()
	granted := ct.granted
	ct.granted = 0
	if ct.lower != nil {
		ct.lower.Stop()
		ct.lower = nil
	}
	e.mu.Unlock()
	e.budgets.giveBack(granted)
}

// history tells a new case how often its container was resumed, and whether
// the rule's cooldown still runs.
func (e *Engine) history(ct *container, r *policy.Rule) (resumes int, cooling bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := ct.ended[r.Name]
	return ct.resumes, ok && time.Since(at) < r.Trigger.Cooldown
}

// lowerAfter takes granted room back once raiseFor has passed and usage fits.
func (e *Engine) lowerAfter(ct *container, raiseFor time.Duration) {
	if raiseFor <= 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ct.lower != nil {
		ct.lower.Stop()
	}
	ct.lower = time.AfterFunc(raiseFor, func() { e.lower(ct) })
}

// lower gives granted room back, or tries again later. An open case has its
// own use for the limit.
func (e *Engine) lower(ct *container) {
	ctx, cancel := context.WithTimeout(e.caseCtx, giveBackWithin)
	defer cancel()
	e.mu.Lock()
	busy := ct.open != nil
	e.mu.Unlock()
	err := error(cgroup.ErrUsage)
	if !busy && fits(ct.cg) {
		err = ct.cg.Restore(ctx)
	}
	switch {
	case err == nil:
		e.ungranted(ct)
		e.log.Info("granted room given back", "container", ct.id.String(), "cgroup", ct.id.Cgroup)
	case errors.Is(err, cgroup.ErrGone), e.caseCtx.Err() != nil:
	default:
		if !errors.Is(err, cgroup.ErrUsage) {
			e.log.Warn("granted room not given back, trying again", "cgroup", ct.id.Cgroup, "error", err)
		}
		e.lowerAfter(ct, lowerRetry)
	}
}

// fits reports whether usage is under the limit as it was before we lent. A
// limit that is lowered only half-way would be met again at once.
func fits(cg cgroup.Cgroup) bool {
	u, err := cg.Usage()
	if err != nil {
		return true // Restore finds out what is wrong
	}
	base, ok := u.BaseLimit.Bytes()
	return !ok || u.Unreclaimable < base
}

// announceOOM tells the runtimes why a container died.
func (e *Engine) announceOOM(ctx context.Context, ct *container) {
	ctx, cancel := context.WithTimeout(ctx, announceFor)
	defer cancel()
	for _, s := range e.sources {
		a, ok := s.(OOMAnnouncer)
		if !ok || ct.id.ID == "" {
			continue
		}
		if err := a.AnnounceOOM(ctx, ct.id); err != nil {
			e.log.Warn("announce the out-of-memory kill", "source", s.Name(), "container", ct.id.String(), "error", err)
		}
	}
}

// execIn runs commands inside a container by the runtime that it came from;
// nil where no runtime can.
func (e *Engine) execIn(c cri.Container) func(context.Context, cri.Command) ([]byte, int, error) {
	for _, s := range e.sources {
		if x, ok := s.(ContainerExecer); ok && c.ID != "" {
			return func(ctx context.Context, cmd cri.Command) ([]byte, int, error) {
				return x.ExecIn(ctx, c, cmd)
			}
		}
	}
	return nil
}

// prune keeps the casebook within its bounds.
func (e *Engine) prune(ctx context.Context) {
	t := time.NewTicker(pruneEvery)
	defer t.Stop()
	for {
		removed, err := e.book.Prune(time.Now())
		if err != nil {
			e.log.Warn("prune casebook", "error", err)
		}
		if len(removed) > 0 {
			e.log.Info("old cases removed", "count", len(removed))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Recover releases what an earlier daemon left behind and closes its cases as
// the kernel's. It must run before Run.
func (e *Engine) Recover(ctx context.Context) error {
	released, err := e.fs.Release(ctx, cgroup.ReleaseOptions{All: true})
	released.Log(e.log)
	cases, berr := e.book.Interrupted()
	if berr != nil {
		e.log.Warn("read interrupted cases", "error", berr)
	}
	for _, c := range cases {
		if err := e.closeInterrupted(c); err != nil {
			e.log.Warn("close interrupted case", "case", c.ID(), "error", err)
		}
	}
	return err
}

// closeInterrupted closes a case that its daemon did not live to close.
func (e *Engine) closeInterrupted(c *casebook.Case) error {
	defer c.Close()
	rec, err := c.Record()
	if err != nil {
		return err
	}
	e.log.Warn("case was interrupted", "case", rec.ID, "state", rec.State)
	rec.Why = "arbiterd ended while the case was in state " + rec.State + "; the container was given back to the kernel"
	rec.State, rec.Outcome, rec.Closed = closed.String(), casebook.OutcomeKernel, time.Now()
	if !rec.HeldAt.IsZero() {
		rec.HeldFor = rec.Closed.Sub(rec.HeldAt)
	}
	e.metrics.cases.WithLabelValues(rec.Rule, string(rec.Facts.Trigger), string(rec.Outcome)).Inc()
	return errors.Join(
		c.Log(casebook.Entry{At: rec.Closed, What: "closed: kernel", Data: map[string]string{"why": rec.Why}}, true),
		c.Save(rec))
}

// record is a copy of the case's record as it is now.
func (c *Case) record() casebook.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}
