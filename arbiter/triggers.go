package arbiter

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

// minCooldown keeps a threshold that stays crossed from opening case after case.
const minCooldown = time.Second

// thawToKill is how long a container that a stranger thawed may take to die.
const thawToKill = time.Second

// echoOfKill is how long after a kill a limit may be met by nobody.
const echoOfKill = 2 * time.Second

// handle takes in what package cgroup saw. It runs in the goroutine that
// watches all cgroups and must not wait for anything.
func (e *Engine) handle(ev cgroup.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ct := e.containers[ev.Cgroup.Path()]
	if ct == nil || ct.cg == nil || ct.cg.ID() != ev.Cgroup.ID() {
		return
	}
	switch ev.Kind {
	case cgroup.EventLimit:
		e.atLimit(ct, ev)
	case cgroup.EventSample:
		u := ev.Usage
		ct.usage, ct.slope = &u, slope{ev.BytesPerSecond, ev.TimeToLimit, true}
		ct.curve.add(ev.At, u, e.opts.Recorder)
		e.sampled(ct, ev)
	case cgroup.EventPressure:
		e.open(ct, ev, policy.OnPressure, func(*policy.Rule) string { return ev.Why })
	case cgroup.EventLimitChanged:
		e.log.Info("limit changed by somebody else", "container", ct.id.String(), "cgroup", ct.id.Cgroup, "why", ev.Why)
		e.queue.add(ct.id.Cgroup)
	case cgroup.EventFreezerChanged:
		e.log.Warn("freezer changed by somebody else", "container", ct.id.String(), "cgroup", ct.id.Cgroup, "why", ev.Why)
		e.thawed(ct, ev)
	case cgroup.EventEscape:
		e.escaped(ct, ev)
	case cgroup.EventNotOurs:
		e.log.Warn("limit above hit by a container that no rule covers", "cgroup", ev.Level, "why", ev.Why)
		e.metrics.notOurs.Inc()
	case cgroup.EventEmpty, cgroup.EventGone:
		e.emptied(ct, ev)
	}
}

// atLimit opens a case for a container at its limit, or tells the open one.
func (e *Engine) atLimit(ct *container, ev cgroup.Event) {
	if c := ct.open; c != nil {
		if c.holds() {
			ct.again = &ev
			c.post(event{kind: evLimitAgain, at: ev.At, why: ev.Why})
			return
		}
		e.escalate(c, ct, ev)
		return
	}
	if ct.busy {
		ct.again = &ev
		return
	}
	if time.Since(ct.killed) < echoOfKill {
		if pids, err := ct.cg.Pids(); err != nil || len(pids) == 0 {
			return // v2 kills by a limit of almost nothing, which is an event as well
		}
	}
	e.open(ct, ev, policy.OnLimit, func(*policy.Rule) string { return ev.Why })
}

// thawed ends a case whose container runs though it was to stand still. Who
// thaws to kill, as a container runtime does, gets the time to.
func (e *Engine) thawed(ct *container, ev cgroup.Event) {
	c := ct.open
	if c == nil || !c.holds() || ct.cg.Status().State == cgroup.HeldNow {
		return
	}
	time.AfterFunc(thawToKill, func() {
		if pids, err := ct.cg.Pids(); err == nil && len(pids) > 0 && ct.cg.Status().State != cgroup.HeldNow {
			c.post(event{kind: evThawed, why: ev.Why})
		}
	})
}

// escalate turns a case that runs beside its container into a limit case.
func (e *Engine) escalate(c *Case, ct *container, ev cgroup.Event) {
	rules := ct.candidatesFor(policy.OnLimit)
	if c.stops() || !mayHold(rules) {
		return // it is being stopped or was refused already, or must not be held
	}
	if why := e.refuse(); why != "" {
		c.post(event{kind: evGiveUp, at: ev.At, why: why})
		return
	}
	c.hasPlace.Store(true)
	fired := trigger{kind: policy.OnLimit, rules: rules, at: ev.At, level: ev.Level, why: ev.Why, hold: true}
	c.post(event{kind: evEscalate, at: ev.At, why: ev.Why, fired: &fired})
}

// sampled opens a case if usage or growth is past a rule's mark.
func (e *Engine) sampled(ct *container, ev cgroup.Event) {
	limit, ok := ev.Usage.BaseLimit.Bytes()
	if !ok || ct.open != nil || limit == 0 {
		return
	}
	share := 100 * float64(ev.Usage.Unreclaimable) / float64(limit)
	e.open(ct, ev, policy.OnUsage, func(r *policy.Rule) string {
		if share < r.Trigger.At {
			return ""
		}
		return fmt.Sprintf("unreclaimable memory is %.1f%% of the limit, at or over %g%%", share, r.Trigger.At)
	})
	e.open(ct, ev, policy.OnGrowth, func(r *policy.Rule) string {
		if ev.TimeToLimit <= 0 || ev.TimeToLimit > r.Trigger.LimitWithin {
			return ""
		}
		return fmt.Sprintf("at %.1f MiB/s the limit is %s away, within %s",
			ev.BytesPerSecond/(1<<20), ev.TimeToLimit.Round(100*time.Millisecond), r.Trigger.LimitWithin)
	})
}

// candidatesFor are the rules of the first trigger of a kind, in order.
func (ct *container) candidatesFor(kind policy.TriggerKind) []*policy.Rule {
	for _, list := range ct.triggers {
		if first(list).Trigger.On == kind {
			return list
		}
	}
	return nil
}

// first is the first rule of a trigger's candidates that is not an exemption.
func first(candidates []*policy.Rule) *policy.Rule {
	for _, r := range candidates {
		if r.Mode != policy.Off {
			return r
		}
	}
	return candidates[0]
}

// mayHold reports whether one of the candidates would stop the container.
func mayHold(candidates []*policy.Rule) bool {
	return slices.ContainsFunc(candidates, func(r *policy.Rule) bool { return r.Mode == policy.Enforce && r.Trigger.Hold })
}

// open opens a case if a trigger of this kind fired. why words how a rule's
// condition is met, or is empty if it is not. e.mu is held.
func (e *Engine) open(ct *container, ev cgroup.Event, kind policy.TriggerKind, why func(*policy.Rule) string) {
	for _, list := range ct.triggers {
		r := first(list)
		atOnce := kind == policy.OnLimit && r.Mode == policy.Enforce // whoever is held already has no time to cool down
		if ct.open != nil || ct.busy || r.Trigger.On != kind || !atOnce && e.cooling(ct, r) {
			continue
		}
		if text := why(r); text != "" {
			e.start(ct, trigger{kind: kind, rules: list, at: ev.At, level: ev.Level, why: text, hold: mayHold(list)})
		}
	}
}

// cooling reports whether the rule's last case on this container is so recent
// that its cooldown still runs.
func (e *Engine) cooling(ct *container, r *policy.Rule) bool {
	at, ok := ct.ended[r.Name]
	return ok && time.Since(at) < max(r.Trigger.Cooldown, minCooldown)
}

// start opens a case and lets its goroutine run. e.mu is held.
func (e *Engine) start(ct *container, fired trigger) *Case {
	id := casebook.NewID(fired.at)
	for at := fired.at; e.cases[id] != nil; id = casebook.NewID(at) {
		at = at.Add(casebook.IDTick)
	}
	rule := first(fired.rules)
	c := &Case{
		id: id, e: e, ct: ct, of: ct.id, fired: fired,
		inbox: make(chan event, 32), done: make(chan struct{}),
		st: state{phase: opening, hold: fired.hold},
		log: e.log.Named("case").With("case", id, "container", ct.id.String(),
			"namespace", ct.id.Pod.Namespace, "pod", ct.id.Pod.Name, "cgroup", ct.id.Cgroup),
	}
	c.rec = casebook.Record{
		ID: id, Rule: rule.Name, RulePos: rule.Pos, Mode: rule.Mode,
		Opened: fired.at, State: opening.String(),
		Facts: policy.Facts{At: fired.at, Container: ct.id, Trigger: fired.kind, Why: fired.why, CgroupVersion: e.fs.Version()},
	}
	c.scribe = newScribe(c.log)
	if fired.hold {
		if why := e.refuse(); why != "" {
			c.st = c.st.giveBack(why)
		} else {
			c.hasPlace.Store(true)
		}
	}
	ct.open, ct.again = c, nil
	e.cases[id] = c
	e.wg.Go(func() { c.run(e.caseCtx) })
	return c
}

// refuse takes a place for one more held container, or tells why there is none.
func (e *Engine) refuse() string {
	if why := cmp.Or(e.stopping, e.rail); why != "" {
		return why
	}
	if err := e.budgets.hold(); err != nil {
		e.metrics.refusals.WithLabelValues("held").Inc()
		return err.Error()
	}
	return ""
}

// escaped counts a kernel kill inside a guarded container.
func (e *Engine) escaped(ct *container, ev cgroup.Event) {
	e.metrics.escapes.Inc()
	e.log.Warn("the kernel killed inside a guarded container", "container", ct.id.String(), "cgroup", ct.id.Cgroup, "why", ev.Why)
	if c := ct.open; c != nil {
		c.mu.Lock()
		c.rec.Escapes++
		c.mu.Unlock()
	}
}

// emptied closes the case of a container that has no process left, and lets go
// of it once its directory is gone.
func (e *Engine) emptied(ct *container, ev cgroup.Event) {
	if c := ct.open; c != nil {
		c.post(event{kind: evGone, at: ev.At, why: "the container ended or was stopped: no process is left"})
	}
	if ev.Kind == cgroup.EventGone {
		ct.gone = true
		e.queue.add(ct.id.Cgroup)
	}
}

// caseClosed makes the engine forget a case and guard its container again.
func (e *Engine) caseClosed(ctx context.Context, c *Case) {
	now := time.Now()
	e.mu.Lock()
	ct := c.ct
	ct.open = nil
	ct.ended[c.ruleName()] = now
	delete(e.cases, c.id)
	switch c.st.outcome {
	case casebook.OutcomeKernel:
		ct.quiet = now.Add(rearmAfter)
		time.AfterFunc(rearmAfter, func() { e.queue.add(ct.id.Cgroup) })
	case casebook.OutcomeKill, casebook.OutcomeGone:
		ct.resumes, ct.killed = 0, now
	case casebook.OutcomeResume:
		if again := ct.again; again != nil {
			defer e.handle(*again)
		}
	}
	e.mu.Unlock()
	if c.hasPlace.Load() {
		e.budgets.unhold()
	}
	c.settle()
	e.queue.add(ct.id.Cgroup)
	e.changed.signal()
	e.afterwards(ctx, c)
}
