package arbiter

import (
	"fmt"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

// decide chooses the verdict once no operation is left.
func (s state) decide() state {
	s.phase = deciding
	switch {
	case s.operator != "" || s.fallback:
		return s
	default:
		s.verdict = s.plan.Do
		if s.why = s.plan.Why; s.why == "" {
			s.why = "as the rule says"
		}
	}
	if s.verdict == policy.Hold {
		s.phase = waiting
	}
	return s
}

// wanted is the verdict as the plan adjusted it to the facts: otherwise =
// "resume" is of no use once the resumes are used up.
func (s state) wanted() policy.Verdict {
	if s.plan.Rule == "" {
		return s.rule.Verdict
	}
	return s.plan.Verdict
}

// wantOtherwise remembers that the verdict will be the rule's otherwise.
func (s state) wantOtherwise(why string) state {
	if s.operator != "" {
		return s
	}
	s.verdict, s.fallback = s.wanted().Otherwise, true
	s.why = fmt.Sprintf("%s, so otherwise = %q", why, s.verdict)
	return s
}

// otherwise carries the rule's otherwise out now.
func (s state) otherwise(why string) state {
	s.operator = ""
	s = s.wantOtherwise(why)
	s.phase = deciding
	return s
}

// judged takes in how the verdict went. A verdict that cannot be carried out
// becomes the rule's otherwise, and that one failing, the kernel's business.
func (s state) judged(e event) state {
	if s.phase != deciding {
		return s
	}
	if e.err == nil {
		s.phase = closed
		s.frozen = false
		s.outcome = outcomeOf(s.verdict)
		if e.why != "" {
			s.why = e.why
		}
		return s
	}
	failed := fmt.Sprintf("%s failed: %v", s.verdict, e.err)
	if s.fallback || s.rule == nil || s.wanted().Otherwise == s.verdict {
		return s.giveBack(failed)
	}
	return s.otherwise(failed)
}

func outcomeOf(v policy.VerdictKind) casebook.Outcome {
	switch v {
	case policy.Kill:
		return casebook.OutcomeKill
	case policy.Resume:
		return casebook.OutcomeResume
	}
	return casebook.OutcomeNone
}

// giveBack ends the case without a verdict of ours.
func (s state) giveBack(why string) state {
	if s.phase == giving {
		return s
	}
	s.phase, s.why = giving, why
	s.skipFrom("given back to the kernel")
	return s
}

// escalate turns a case that runs beside its container into one that holds it.
func (s state) escalate(e event) state {
	for i, r := range s.steps {
		if r.Result == "" {
			r.Result, r.Why = stepSkipped, "the limit was reached"
		}
		s.done = append(s.done, r)
		s.doneOf = append(s.doneOf, s.plan.Steps[i])
	}
	s.phase, s.hold, s.steps, s.op, s.skipAll = opening, true, nil, 0, ""
	s.verdict, s.fallback, s.why = "", false, e.why
	return s
}
