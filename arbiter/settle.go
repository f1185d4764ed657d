package arbiter

import (
	"fmt"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

// opEnded takes in how the present operation went.
func (s state) opEnded(e event) state {
	if s.phase != stepping || s.op >= len(s.plan.Ops) {
		return s
	}
	op := s.plan.Ops[s.op]
	s.op++
	switch op.Kind {
	case policy.OpFreeze:
		if e.err != nil {
			return s.giveBack(fmt.Sprintf("could not be held again: %v", e.err))
		}
		s.frozen = true
		if s.heldAt.IsZero() {
			s.heldAt = e.at
		}
	case policy.OpThaw:
		if e.err != nil {
			return s.stepFailed(op.Step, fmt.Sprintf("thaw: %v", e.err))
		}
		s.frozen = false
	case policy.OpRaise:
		if e.err != nil {
			return s.stepFailed(op.Step, fmt.Sprintf("raise: %v", e.err))
		}
		s.lent = true
	case policy.OpRestore:
		// Usage above the limit keeps what was lent until the verdict.
		s.lent = e.err != nil
	case policy.OpStep:
		s = s.withStep(op.Step, e.step)
		if e.step.Result == stepFailed || e.step.Result == stepTimeout {
			return s.afterFailure(op.Step)
		}
	}
	return s
}

func (s state) withStep(i int, r casebook.StepRecord) state {
	s.steps = append([]casebook.StepRecord(nil), s.steps...)
	s.steps[i] = r
	return s
}

func (s state) stepFailed(i int, why string) state {
	if i < 0 {
		return s
	}
	r := s.steps[i]
	r.Result, r.Error = stepFailed, why
	return s.withStep(i, r).afterFailure(i)
}

func (s state) afterFailure(i int) state {
	name := s.plan.Steps[i].Name
	switch s.plan.Steps[i].OnFailure {
	case policy.ToVerdict:
		s.skipAll = fmt.Sprintf("%s failed: on to the verdict", name)
	case policy.ToFallback:
		s.skipAll = fmt.Sprintf("%s failed: otherwise", name)
		s = s.wantOtherwise(fmt.Sprintf("step %s failed", name))
	}
	return s
}

func (s state) settleUnless(more bool) state {
	if more {
		return s
	}
	return s.settle()
}

// settle skips operations that have become pointless, and moves on to the
// verdict when none is left.
func (s state) settle() state {
	if s.phase != stepping {
		return s
	}
	for s.op < len(s.plan.Ops) && !s.needs(s.plan.Ops[s.op]) {
		s.op++
	}
	if s.op < len(s.plan.Ops) {
		return s
	}
	s.skipFrom("not reached")
	return s.decide()
}

// needs reports whether an operation is still to be done. Freezing and giving
// back always are, if there is something to freeze or give back.
func (s *state) needs(op policy.Op) bool {
	switch op.Kind {
	case policy.OpFreeze:
		return s.hold && !s.frozen
	case policy.OpRestore:
		return s.lent
	}
	if op.Step < 0 {
		return true
	}
	r := &s.steps[op.Step]
	if r.Result == "" {
		if why := s.skipReason(op.Step); why != "" {
			s.steps = append([]casebook.StepRecord(nil), s.steps...)
			r = &s.steps[op.Step]
			r.Result, r.Why = stepSkipped, why
		}
	}
	return r.Result == ""
}

// skipReason tells why step i shall not run, or "".
func (s *state) skipReason(i int) string {
	if s.skipAll != "" {
		return s.skipAll
	}
	need := s.plan.Steps[i].IfFailed
	for _, name := range need {
		for _, r := range s.steps[:i] {
			if r.Name == name && (r.Result == stepFailed || r.Result == stepTimeout) {
				return ""
			}
		}
	}
	if len(need) > 0 {
		return fmt.Sprintf("runs only if %v failed", need)
	}
	return ""
}

func (s *state) skipFrom(why string) {
	s.steps = append([]casebook.StepRecord(nil), s.steps...)
	for i := range s.steps {
		if s.steps[i].Result == "" {
			s.steps[i].Result, s.steps[i].Why = stepSkipped, why
		}
	}
}
