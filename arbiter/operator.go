package arbiter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/api/server"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

var _ server.Backend = (*Engine)(nil)

// manualRule is what `pause` uses where no rule is named and none matches: a
// snapshot, then the operator decides.
var manualRule = policy.Rule{
	Name: "manual", Mode: policy.Enforce, Guard: policy.GuardAuto,
	Trigger: policy.Trigger{On: policy.OnManual, Hold: true},
	Verdict: policy.Verdict{
		Do: policy.Hold, Kill: policy.KillContainer, HoldFor: 15 * time.Minute,
		Deadline: 5 * time.Minute, Otherwise: policy.Resume,
	},
}

// order gives a case an operator's verdict and waits until it is closed.
func (e *Engine) order(ctx context.Context, part, operator string, ev event) (api.Done, error) {
	c, err := e.findCase(part)
	if err != nil {
		return api.Done{}, err
	}
	ev.kind, ev.who = evOperator, operator
	c.post(ev)
	select {
	case <-c.done:
	case <-ctx.Done():
		return api.Done{Case: c.id}, fmt.Errorf("%s of case %s ordered, but not done yet: %w", ev.verdict, c.id, ctx.Err())
	}
	rec := c.record()
	if string(rec.Outcome) != string(ev.verdict) {
		return api.Done{Case: c.id}, fmt.Errorf("%w: case %s closed as %s: %s", server.ErrConflict, c.id, rec.Outcome, rec.Why)
	}
	return api.Done{Case: c.id, Message: fmt.Sprintf("%s: %s of %s", c.id, rec.Outcome, c.of)}, nil
}

// Resume is an operator's verdict.
func (e *Engine) Resume(ctx context.Context, caseID string, r api.ResumeRequest, operator string) (api.Done, error) {
	ev := event{verdict: policy.Resume}
	if r.Raise != "" {
		size, err := policy.ParseSize(r.Raise)
		if err != nil {
			return api.Done{}, fmt.Errorf("%w: raise: %w", server.ErrInvalid, err)
		}
		ev.raise = size
	}
	return e.order(ctx, caseID, operator, ev)
}

// Kill is an operator's verdict.
func (e *Engine) Kill(ctx context.Context, caseID, operator string) (api.Done, error) {
	return e.order(ctx, caseID, operator, event{verdict: policy.Kill})
}

// Extend gives a case that waits for an operator more time.
func (e *Engine) Extend(ctx context.Context, caseID string, r api.ExtendRequest, operator string) (api.Done, error) {
	by, err := policy.ParseDuration(r.By)
	if err == nil && by <= 0 {
		err = errors.New("it must be more than nothing")
	}
	if err != nil {
		return api.Done{}, fmt.Errorf("%w: %q is no time to extend by (as in 10m): %w", server.ErrInvalid, r.By, err)
	}
	c, err := e.findCase(caseID)
	if err != nil {
		return api.Done{}, err
	}
	if rec := c.record(); rec.State != waiting.String() {
		return api.Done{}, fmt.Errorf("%w: case %s is in state %q; only a case that waits for an operator can be extended", server.ErrConflict, c.id, rec.State)
	}
	taken := make(chan struct{})
	c.post(event{kind: evExtend, by: by, who: operator, ack: taken})
	select {
	case <-taken:
	case <-c.done:
		return api.Done{}, fmt.Errorf("%w: case %s has just closed", server.ErrConflict, c.id)
	case <-ctx.Done():
		return api.Done{}, ctx.Err()
	}
	return api.Done{Case: c.id, Message: fmt.Sprintf("%s: %s longer", c.id, by)}, nil
}

// Pause opens a manual case.
func (e *Engine) Pause(ctx context.Context, r api.PauseRequest, operator string) (api.Done, error) {
	ct, err := e.target(r.Target)
	if err != nil {
		return api.Done{}, err
	}
	if why, reserved := e.fs.Reserved(ct.id.Cgroup, server.PeerPid(ctx)); reserved {
		return api.Done{}, fmt.Errorf("%w: %s is never held: %s", server.ErrInvalid, ct.id, why)
	}
	rule, err := e.manual(ct, r.Rule)
	if err != nil {
		return api.Done{}, err
	}
	if ct.cg == nil {
		cg, err := e.fs.Get(ct.id.Cgroup)
		if err != nil {
			return api.Done{}, fmt.Errorf("%w: %w", server.ErrNotFound, err)
		}
		e.mu.Lock()
		ct.cg = cg
		e.mu.Unlock()
	}
	if ct, err = e.take(ctx, ct); err != nil {
		return api.Done{}, err
	}
	if c := ct.open; c != nil {
		e.mu.Unlock()
		return api.Done{}, fmt.Errorf("%w: %s already has the open case %s", server.ErrConflict, ct.id, c.id)
	}
	c := e.start(ct, trigger{
		kind: policy.OnManual, rules: []*policy.Rule{rule}, at: time.Now(),
		why: "paused by " + operator, hold: true,
	})
	e.mu.Unlock()
	if err := c.untilHeld(ctx); err != nil {
		return api.Done{Case: c.id}, err
	}
	return api.Done{Case: c.id, Message: fmt.Sprintf("%s: %s is held by rule %s", c.id, ct.id, rule.Name)}, nil
}

// take makes a container one of the engine's own and returns with e.mu held,
// once no worker arms it or lets go of it.
func (e *Engine) take(ctx context.Context, ct *container) (*container, error) {
	t := time.NewTicker(pollExit)
	defer t.Stop()
	for {
		e.mu.Lock()
		own := e.adopt(ct)
		if !own.busy {
			if own.cg == nil {
				own.cg = ct.cg
			}
			return own, nil
		}
		e.mu.Unlock()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("hold %s: %w", ct.id, ctx.Err())
		}
	}
}

// untilHeld waits until the container stands still or the case has ended.
func (c *Case) untilHeld(ctx context.Context) error {
	for {
		changed := c.e.changed.wait()
		if c.holds() {
			return nil
		}
		select {
		case <-changed:
		case <-c.done:
			rec := c.record()
			return fmt.Errorf("%w: case %s closed as %s: %s", server.ErrConflict, c.id, rec.Outcome, rec.Why)
		case <-ctx.Done():
			return fmt.Errorf("hold %s: %w", c.of, ctx.Err())
		}
	}
}

// manual is the rule for an operator's case: the one named, else the one that
// the limit would choose, else only a hold.
func (e *Engine) manual(ct *container, name string) (*policy.Rule, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if name == "" {
		if rules := ct.candidatesFor(policy.OnLimit); mayHold(rules) {
			return first(rules), nil
		}
		return &manualRule, nil
	}
	for _, r := range e.policy.Rules {
		if r.Name == name {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w: no rule is named %q", server.ErrNotFound, name)
}

// Disarm lets go of containers and stops guarding them until the next reload.
func (e *Engine) Disarm(ctx context.Context, r api.DisarmRequest, operator string) (api.Done, error) {
	why := "disarmed by " + operator
	var hit []*container
	if r.All {
		e.mu.Lock()
		e.disarmedAll = true
		for _, ct := range e.containers {
			hit = append(hit, ct)
		}
		e.mu.Unlock()
	} else {
		ct, err := e.target(r.Target)
		if err != nil {
			return api.Done{}, err
		}
		e.mu.Lock()
		e.disarmed[ct.id.Cgroup] = true
		e.mu.Unlock()
		hit = append(hit, ct)
	}
	e.log.Warn("disarmed", "operator", operator, "all", r.All, "cgroup", r.Target)
	if err := e.letGo(ctx, hit, why); err != nil {
		return api.Done{}, err
	}
	what := "all containers"
	if !r.All {
		what = hit[0].id.String()
	}
	return api.Done{Message: what + ": disarmed until `arbiterctl reload`"}, nil
}

// letGo ends the cases of the given containers and disarms them.
func (e *Engine) letGo(ctx context.Context, cts []*container, why string) error {
	for _, ct := range cts {
		e.mu.Lock()
		c := ct.open
		e.mu.Unlock()
		if c == nil {
			continue
		}
		c.post(event{kind: evGiveUp, why: why})
		select {
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("case %s does not end: %w", c.id, ctx.Err())
		}
	}
	var errs []error
	for _, ct := range cts {
		if ct.cg == nil {
			continue
		}
		if err := ct.cg.Disarm(ctx); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("disarm %s: %w", ct.id, err))
			continue
		}
		e.ungranted(ct)
		e.queue.add(ct.id.Cgroup)
	}
	return errors.Join(errs...)
}

// Reload reads the policy anew. A policy with errors changes nothing.
func (e *Engine) Reload(_ context.Context, operator string) (api.Done, error) {
	if err := e.load(); err != nil {
		e.log.Error("policy not reloaded, the last good one stays in force", "operator", operator, "error", err)
		return api.Done{}, fmt.Errorf("%w: the policy in force stays: %w", server.ErrInvalid, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.log.Info("policy reloaded", "operator", operator, "rules", e.loaded.Rules, "digest", e.loaded.Digest)
	return api.Done{Message: fmt.Sprintf("%d rules from %d files, digest %s", e.loaded.Rules, len(e.loaded.Files), e.loaded.Digest)}, nil
}

func isGone(err error) bool { return errors.Is(err, cgroup.ErrGone) }
