package arbiter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/action"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

// Times that bound what a case waits for beside the policy's own.
const (
	freezeTimeout  = 3 * time.Second // until a container must stand still
	thawTimeout    = 3 * time.Second
	detectTimeout  = 500 * time.Millisecond // to tell the runtime of a stuck process
	killTimeout    = 20 * time.Second       // until a killed container must be empty
	abandonAfter   = 2 * time.Second        // for an action to heed its cancelled context
	giveBackWithin = 5 * time.Second
)

// A Case is one episode on one container, from trigger to closed. run carries
// it out in one goroutine; everything else talks to it through post.
type Case struct {
	id    string
	e     *Engine
	ct    *container
	of    cri.Container // whom the case is about: ct.id may be told anew meanwhile
	fired trigger
	log   hclog.Logger
	curve bool // the container's memory curve was kept
	inbox chan event
	done  chan struct{} // closed when the case is

	mu       sync.Mutex // guards st and rec for readers outside the goroutine
	st       state
	rec      casebook.Record
	progress string

	scribe   *scribe
	book     atomic.Pointer[casebook.Case] // made by the scribe
	hasPlace atomic.Bool                   // holds a place in the held budget
	lending  sync.Mutex                    // serializes borrow; an abandoned step may still call it
	borrowed uint64                        // bytes lent by this case, taken from the budget
	settled  bool                          // nothing is lent any more
	kept     uint64                        // of those, what was lent before the present step
	after    []action.Work
	deadline *time.Timer
}

// trigger is what opened a case.
type trigger struct {
	kind  policy.TriggerKind
	rules []*policy.Rule // candidates, in order
	at    time.Time
	level string
	why   string
	hold  bool
}

// post hands an event to the case. It never blocks: an inbox that is full
// belongs to a case that has been told more than it can ever act on.
func (c *Case) post(e event) {
	if e.at.IsZero() {
		e.at = time.Now()
	}
	select {
	case c.inbox <- e:
	default:
		if e.kind != evLimitAgain { // one of many says it all
			c.log.Warn("case event dropped", "kind", e.kind)
		}
	}
}

// run takes the case from its trigger to its close.
func (c *Case) run(ctx context.Context) {
	defer close(c.done)
	for c.st.phase != closed {
		switch c.st.phase {
		case opening:
			c.do(ctx, c.open)
		case planning:
			c.do(ctx, c.plan)
		case stepping:
			c.do(ctx, c.operate)
		case waiting:
			c.await(ctx)
		case deciding:
			c.apply(c.judge(ctx))
		case giving:
			c.apply(c.giveBack(ctx))
		}
	}
	c.close(ctx)
}

// do runs one piece of work, and listens meanwhile. What cannot wait for the
// work's end cancels it; work that ignores that is abandoned.
func (c *Case) do(ctx context.Context, work func(context.Context, state) event) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	result := make(chan event, 1)
	go func(s state) { result <- work(ctx, s) }(c.st)
	for {
		select {
		case ev := <-result:
			c.apply(ev)
			return
		case ev := <-c.inbox:
			if !ev.interrupts(c.st) {
				c.apply(ev)
				continue
			}
			if ev.kind == evEscalate || ev.kind == evLimitAgain {
				c.reflex(ctx)
			}
			cancel(preempted{ev})
			last := <-result
			last.more = true
			c.apply(last)
			c.apply(ev)
			return
		}
	}
}

// preempted is the cause of a context that an event cancelled.
type preempted struct{ ev event }

func (p preempted) Error() string {
	switch p.ev.kind {
	case evLimitAgain:
		return "the raised limit was reached as well"
	case evEscalate:
		return "the limit was reached"
	case evDeadline:
		return "the deadline of all steps passed"
	case evOperator:
		return "an operator decided"
	case evGone:
		return "the container is gone"
	}
	return p.ev.why
}

// reflex stops a container that hit its limit while a step runs, before the
// step has had time to end. The plan's own freeze then finds it done.
func (c *Case) reflex(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	if err := c.ct.cg.Freeze(ctx); err != nil {
		c.log.Warn("freeze at the limit", "error", err)
	}
}

// await waits for an operator, or for the end of hold-for.
func (c *Case) await(ctx context.Context) {
	t := time.NewTimer(time.Until(c.st.until))
	defer t.Stop()
	select {
	case ev := <-c.inbox:
		c.apply(ev)
	case now := <-t.C:
		c.apply(event{kind: evWaited, at: now})
	case <-ctx.Done():
		c.apply(event{kind: evGiveUp, at: time.Now(), why: context.Cause(ctx).Error()})
	}
}

// apply decides, publishes the new state and writes it down.
func (c *Case) apply(ev event) {
	if ev.at.IsZero() {
		ev.at = time.Now()
	}
	c.mu.Lock()
	before := c.st
	if ev.fired != nil {
		c.fired = *ev.fired
	}
	c.st = transition(c.st, ev)
	if c.st.op != before.op || c.st.phase != before.phase {
		c.progress = ""
	}
	c.note(before)
	c.mu.Unlock()
	if ev.ack != nil {
		close(ev.ack)
	}
	c.e.changed.signal()
	if what, sync := noteOf(before, c.st, ev); what != "" && c.st.phase != closed {
		c.write(what, nil, sync)
	}
	if c.st.frozen && !before.frozen && before.heldAt.IsZero() {
		c.held()
	}
	if c.st.phase != before.phase && before.phase == planning && c.st.phase == stepping {
		c.startDeadline()
	}
}

// held accounts for a container that now stands still.
func (c *Case) held() {
	c.e.metrics.triggerToHold.Observe(c.st.heldAt.Sub(c.fired.at).Seconds())
	c.log.Info("container held", "rule", c.ruleName(), "trigger", c.fired.kind, "why", c.fired.why,
		"elapsed", c.st.heldAt.Sub(c.fired.at))
}

func (c *Case) startDeadline() {
	d := c.st.rule.Verdict.Deadline
	if d <= 0 {
		return
	}
	if c.deadline != nil {
		c.deadline.Stop()
	}
	c.deadline = time.AfterFunc(d, func() { c.post(event{kind: evDeadline}) })
	c.mu.Lock()
	c.rec.Deadline, c.rec.Then = time.Now().Add(d), c.st.wanted().Otherwise
	c.mu.Unlock()
	c.e.changed.signal()
}

// open stops the container, if the case is to hold it.
func (c *Case) open(ctx context.Context, s state) event {
	if !s.hold {
		return event{kind: evBeside}
	}
	fctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	err := c.ct.cg.Freeze(fctx)
	switch {
	case errors.Is(err, cgroup.ErrGone):
		return event{kind: evGone, why: "the container vanished before it could be held"}
	case err != nil:
		return event{kind: evFailed, err: err}
	}
	return event{kind: evHeld, at: time.Now()}
}

// close writes the last word and lets the engine forget the case.
func (c *Case) close(ctx context.Context) {
	if c.deadline != nil {
		c.deadline.Stop()
	}
	now := time.Now()
	if c.st.outcome == casebook.OutcomeGone {
		// Its directory may stay and fill again: nothing of this case with it.
		c.giveBack(ctx)
	}
	c.keepCurve() // of a case that did not hold
	c.mu.Lock()
	c.rec.Closed, c.rec.Outcome, c.rec.Why = now, c.st.outcome, c.st.why
	c.rec.Verdict, c.rec.Operator = c.st.verdict, c.st.operator
	if !c.st.heldAt.IsZero() {
		c.rec.HeldFor = now.Sub(c.st.heldAt)
		c.e.metrics.holdSeconds.Observe(c.rec.HeldFor.Seconds())
	}
	c.mu.Unlock()
	c.write(fmt.Sprintf("closed: %s", c.st.outcome), map[string]string{"why": c.st.why}, true)
	c.e.metrics.cases.WithLabelValues(c.ruleName(), string(c.fired.kind), string(c.st.outcome)).Inc()
	c.log.Info("case closed", "rule", c.ruleName(), "verdict", c.st.verdict, "outcome", c.st.outcome, "why", c.st.why,
		"elapsed", now.Sub(c.rec.Opened))
	c.e.caseClosed(ctx, c)
}

func (c *Case) ruleName() string {
	if c.st.rule != nil {
		return c.st.rule.Name
	}
	return first(c.fired.rules).Name
}
