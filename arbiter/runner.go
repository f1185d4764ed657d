package arbiter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/arbiterd/arbiter/arbiter/action"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

// plan takes the facts, chooses the rule and makes the plan.
func (c *Case) plan(ctx context.Context, s state) event {
	facts, err := c.facts(ctx)
	if errors.Is(err, cgroup.ErrGone) {
		return event{kind: evGone, why: "the container vanished before its facts were taken"}
	}
	if err != nil {
		return event{kind: evGiveUp, why: fmt.Sprintf("facts could not be taken: %v", err)}
	}
	rule := policy.Pick(c.fired.rules, facts.Runtime)
	if rule == nil {
		return event{kind: evGiveUp, why: fmt.Sprintf("no rule covers the runtime %q", facts.Runtime)}
	}
	if rule.Mode != policy.Enforce && s.hold {
		return event{kind: evGiveUp, why: fmt.Sprintf("the runtime is %q, for which rule %s has mode = %q", facts.Runtime, rule.Name, rule.Mode)}
	}
	if !rule.AllowFUSE && s.hold && c.e.servesFUSE(ctx, c.ct) {
		return event{kind: evGiveUp, why: "the container serves a FUSE file system, whose users would hang; allow-fuse is not set"}
	}
	if s.hold {
		c.keepCurve()
	}
	facts.Resumes, facts.InCooldown = c.e.history(c.ct, rule)
	c.mu.Lock()
	c.rec.Facts = facts
	c.mu.Unlock()
	return event{kind: evPlanned, rule: rule, plan: policy.MakePlan(rule, facts)}
}

// facts is the snapshot that the plan is made from.
func (c *Case) facts(ctx context.Context) (policy.Facts, error) {
	u, err := c.ct.cg.Usage()
	if err != nil {
		return policy.Facts{}, err
	}
	f := policy.Facts{
		At: c.fired.at, Container: c.of, Trigger: c.fired.kind, Why: c.fired.why,
		CgroupVersion: c.e.fs.Version(),
		Limit:         u.BaseLimit, LimitCgroup: u.LimitCgroup,
		UsageBytes: u.Current, UnreclaimableBytes: u.Unreclaimable,
		BorrowableBytes: c.e.budgets.borrowable(),
	}
	pids, err := c.ct.cg.Pids()
	if err != nil {
		return f, err
	}
	f.Runtime = c.e.runtimeOf(ctx, pids)
	return f, nil
}

// operate carries out the plan's present operation. The kernel's operations
// are short and bounded, and are not cut off in the middle.
func (c *Case) operate(ctx context.Context, s state) event {
	op := s.plan.Ops[s.op]
	if op.Kind == policy.OpStep {
		return event{kind: evOp, step: c.runStep(ctx, s, op.Step)}
	}
	kctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), freezeTimeout)
	defer cancel()
	err := c.kernelOp(kctx, op)
	if errors.Is(err, cgroup.ErrGone) {
		return event{kind: evGone, why: fmt.Sprintf("the container vanished at %s", op.Kind)}
	}
	return event{kind: evOp, err: err, at: time.Now()}
}

func (c *Case) kernelOp(ctx context.Context, op policy.Op) error {
	switch op.Kind {
	case policy.OpFreeze:
		return c.ct.cg.Freeze(ctx)
	case policy.OpThaw:
		return c.ct.cg.Thaw(ctx)
	case policy.OpRaise:
		c.kept = c.borrowed
		return c.borrow(ctx, c.kept+op.Bytes)
	case policy.OpRestore:
		return c.borrow(ctx, c.kept)
	}
	return fmt.Errorf("unknown operation %q", op.Kind)
}

// borrow makes the room lent to the container bytes above its original limit,
// within the budget.
func (c *Case) borrow(ctx context.Context, bytes uint64) error {
	c.lending.Lock()
	defer c.lending.Unlock()
	if ctx.Err() != nil || c.settled {
		return errors.Join(ctx.Err(), errSettled)
	}
	if bytes > c.borrowed {
		if err := c.e.budgets.borrow(bytes - c.borrowed); err != nil {
			c.e.metrics.refusals.WithLabelValues("borrowed").Inc()
			return err
		}
		if err := c.ct.cg.Borrow(ctx, bytes); err != nil {
			c.e.budgets.giveBack(bytes - c.borrowed)
			return err
		}
		c.borrowed = bytes
		return nil
	}
	if bytes == c.borrowed {
		return nil
	}
	if err := c.ct.cg.Borrow(ctx, bytes); err != nil {
		return err
	}
	c.e.budgets.giveBack(c.borrowed - bytes)
	c.borrowed = bytes
	return nil
}

// errSettled is for an abandoned step that asks for room of a closed case.
var errSettled = errors.New("the case is closed")

// settle gives what is still lent back to the budget; the case lends no more.
func (c *Case) settle() {
	c.lending.Lock()
	defer c.lending.Unlock()
	c.e.budgets.giveBack(c.borrowed)
	c.borrowed, c.settled = 0, true
}

// runStep runs one action with its deadline and words how it went.
func (c *Case) runStep(ctx context.Context, s state, i int) casebook.StepRecord {
	step := s.plan.Steps[i]
	r := casebook.StepRecord{Name: step.Name, Action: step.Action, Started: time.Now()}
	act, err := action.New(step)
	if err != nil {
		r.Result, r.Error = stepFailed, err.Error()
		return r
	}
	leave, err := c.e.budgets.enterDump(ctx, step.Action)
	if err != nil {
		r.Result, r.Error = resultOf(ctx, err), fmt.Sprintf("wait for a free dump slot: %v", err)
		return r
	}
	defer leave()
	sctx, cancel := context.WithTimeout(ctx, step.Timeout)
	defer cancel()
	r.Started = time.Now()
	res, err := c.bounded(sctx, act, c.env(sctx, s.rule, step))
	r.Elapsed = time.Since(r.Started)
	r.Summary, r.Details = res.Summary, res.Details
	r.Result = resultOf(ctx, err)
	if err != nil {
		r.Error = err.Error()
	}
	if r.Result == stepPreempted {
		if p, ok := errors.AsType[preempted](context.Cause(ctx)); ok {
			r.Error = p.Error()
			switch p.ev.kind {
			case evLimitAgain:
				r.Result = stepFailed
			case evDeadline:
				r.Result = stepTimeout
			}
		}
	}
	c.after = append(c.after, res.After...)
	c.e.metrics.steps.WithLabelValues(step.Action, r.Result).Observe(r.Elapsed.Seconds())
	return r
}

// bounded runs an action, and abandons it if it does not heed its deadline.
func (c *Case) bounded(ctx context.Context, act action.Action, env action.Env) (action.Result, error) {
	type end struct {
		res action.Result
		err error
	}
	done := make(chan end, 1)
	go func() {
		res, err := act.Run(ctx, env)
		done <- end{res, err}
	}()
	select {
	case e := <-done:
		return e.res, e.err
	case <-ctx.Done():
	}
	t := time.NewTimer(abandonAfter)
	defer t.Stop()
	select {
	case e := <-done:
		return e.res, errors.Join(ctx.Err(), e.err)
	case <-t.C:
		c.log.Warn("step abandoned", "step", env.Step.Name, "action", env.Step.Action)
		return action.Result{}, fmt.Errorf("abandoned, it did not end: %w", ctx.Err())
	}
}

// resultOf words an action's end. outer is the case's context: if that one
// ended, the step was not late but preempted.
func resultOf(outer context.Context, err error) string {
	switch {
	case err == nil:
		return stepOK
	case outer.Err() != nil:
		return stepPreempted
	case errors.Is(err, context.DeadlineExceeded):
		return stepTimeout
	}
	return stepFailed
}

// env is what an action may use as long as ctx, the step's, is not done.
func (c *Case) env(stepCtx context.Context, rule *policy.Rule, step policy.Step) action.Env {
	return action.Env{
		Case: c.id, CaseJSON: c.json, Facts: c.record().Facts, Rule: rule, Step: step,
		Cgroup: c.ct.cg, Proc: c.e.proc,
		Artifacts: c.artifacts(step.Name),
		Log:       c.log.With("step", step.Name, "action", step.Action),
		Progress:  func(done, total uint64) { c.setProgress(step.Name, done, total) },
		Borrow: func(ctx context.Context, bytes uint64) error {
			if stepCtx.Err() != nil {
				return stepCtx.Err()
			}
			return c.borrow(ctx, bytes)
		},
		ExecIn:  c.e.execIn(c.of),
		Uploads: c.e.opts.Uploads,
		Shelf:   c.shelf,
	}
}
