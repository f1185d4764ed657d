package policy

import (
	"fmt"
	"math"
	"time"
)

// minGrantRaise is lent before a SIGTERM where the rule gives no verdict.raise:
// a process without room cannot run its handler.
var minGrantRaise = Size{Percent: 25}

// GraceRaise is the room lent for term-grace: verdict.raise, or 25 %.
func (v Verdict) GraceRaise() Size {
	if v.Raise.IsZero() {
		return minGrantRaise
	}
	return v.Raise
}

// MakePlan applies a rule to facts. It decides everything that can be decided
// before the first step runs; what is left to run time (a failed step, the
// deadline, an operator) only ever cuts the plan short.
func MakePlan(r *Rule, f Facts) Plan {
	p := Plan{
		Rule: r.Name, Pos: r.Pos, Hold: r.Trigger.Hold || f.Trigger == OnLimit || f.Trigger == OnManual,
		Steps: withSnapshot(r.Steps), Verdict: r.Verdict,
	}
	if f.InCooldown && f.Trigger != OnManual {
		p.Steps = p.Steps[:1]
		p.note("within the cooldown of %s: only the snapshot is taken", FormatDuration(r.Trigger.Cooldown))
	}
	p.decide(r, f)
	p.arrange(f)
	p.measure(f)
	return p
}

// withSnapshot is the steps with a snapshot first, whether named or not.
func withSnapshot(steps []Step) []Step {
	out := []Step{{
		Action: SnapshotAction, Name: SnapshotAction, OnFailure: Continue,
		Timeout: snapshotTimeout, Options: SnapshotOptions{},
	}}
	for _, s := range steps {
		if s.Action == SnapshotAction && s.Name == SnapshotAction {
			s.IfFailed = nil // it is first: nothing can have failed
			out[0] = s
			continue
		}
		out = append(out, s)
	}
	return out
}

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// decide chooses the verdict that the facts allow.
func (p *Plan) decide(r *Rule, f Facts) {
	v := &p.Verdict
	p.Do = v.Do
	if why := noResume(r, f); why != "" {
		if v.Otherwise == Resume {
			v.Otherwise = Kill
		}
		if p.Do == Resume {
			p.Do, p.Why = v.Otherwise, why
		}
	}
	if r.ResumeWithin > 0 && p.Do == Hold && v.Otherwise == Resume && v.HoldFor >= r.ResumeWithin {
		v.Otherwise = Kill
		p.note("hold-for %s is longer than resume-within %s: at its end it is killed, not resumed",
			FormatDuration(v.HoldFor), FormatDuration(r.ResumeWithin))
	}
}

// noResume is why a container may not be resumed any more, or empty.
func noResume(r *Rule, f Facts) string {
	if f.Resumes >= r.Verdict.Resumes {
		return fmt.Sprintf("%d of %d resumes used", f.Resumes, r.Verdict.Resumes)
	}
	if limit, ok := f.Limit.Bytes(); ok && r.Verdict.Raise.Of(limit) == 0 {
		return "there is no room to resume with"
	}
	return ""
}

// arrange puts freezes, thaws, raises and restores around the steps. A step
// finds the container in the state that it needs and leaves it as it was
// before, so that a step that is skipped takes its operations with it:
//
//	held:    freeze, step, [raise, thaw, running step, freeze, restore], step
//	running: step, [freeze, frozen step, thaw], step
func (p *Plan) arrange(f Facts) {
	if p.Hold {
		p.op(OpFreeze, -1, 0)
	}
	limit, _ := f.Limit.Bytes()
	for i, s := range p.Steps {
		raise := s.Raise.Of(limit)
		needs := s.Options.Needs()
		if raise > 0 {
			p.op(OpRaise, i, raise)
		}
		switch {
		case p.Hold && needs == Running:
			p.op(OpThaw, i, 0)
			p.op(OpStep, i, 0)
			p.op(OpFreeze, i, 0)
		case !p.Hold && needs == Frozen:
			p.op(OpFreeze, i, 0)
			p.op(OpStep, i, 0)
			p.op(OpThaw, i, 0)
		default:
			p.op(OpStep, i, 0)
		}
		if raise > 0 {
			p.op(OpRestore, i, 0)
		}
	}
}

func (p *Plan) op(kind OpKind, step int, bytes uint64) {
	p.Ops = append(p.Ops, Op{Kind: kind, Step: step, Bytes: bytes})
}

// measure fills in what the plan can cost at worst.
func (p *Plan) measure(f Facts) {
	var steps time.Duration
	for _, s := range p.Steps {
		steps = addTime(steps, s.Timeout)
	}
	steps = min(steps, p.Verdict.Deadline)
	limit, limited := f.Limit.Bytes()
	var kept uint64 // by raise steps, until the case closes
	for _, s := range p.Steps {
		p.Borrowed = max(p.Borrowed, add(kept, s.Raise.Of(limit)))
		if o, ok := s.Options.(RaiseOptions); ok {
			kept = add(kept, o.By.Of(limit))
			p.Borrowed = max(p.Borrowed, kept)
		}
	}
	if p.Verdict.TermGrace > 0 && (p.Do == Kill || p.Verdict.Otherwise == Kill) {
		p.Borrowed = max(p.Borrowed, p.Verdict.GraceRaise().Of(limit))
	}
	if p.Do == Resume && limited {
		p.Granted = p.Verdict.Raise.Of(limit)
	}
	if lend, ok := f.BorrowableBytes.Bytes(); ok && p.Borrowed > lend {
		p.note("the plan borrows up to %s and the budget lends %s more: steps beyond it fail",
			FormatBytes(p.Borrowed), FormatBytes(lend))
	}
	if lend, ok := f.BorrowableBytes.Bytes(); ok && p.Granted > lend {
		p.note("the resume takes %s and the budget lends %s more: then otherwise", FormatBytes(p.Granted), FormatBytes(lend))
	}
	p.MaxHold = p.maxHold(steps)
}

// maxHold is the longest that the container can stand still.
func (p *Plan) maxHold(steps time.Duration) time.Duration {
	switch {
	case p.Hold && p.Do == Hold:
		return addTime(steps, p.Verdict.HoldFor)
	case p.Hold:
		return steps
	}
	var frozen time.Duration
	for _, s := range p.Steps {
		if s.Options.Needs() == Frozen {
			frozen = addTime(frozen, s.Timeout)
		}
	}
	return min(frozen, steps)
}

// add saturates: a policy's sizes are bounded, a sum of many need not be.
func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func addTime(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
