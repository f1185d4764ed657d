package arbiter

import (
	"fmt"
	"reflect"
	"time"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

// phase is how far a case has come.
type phase uint8

const (
	opening  phase = iota // stop the container, if the case holds
	planning              // take the facts, choose the rule, make the plan
	stepping              // carry out the plan's operations
	waiting               // the verdict is hold: an operator is asked
	deciding              // carry out the verdict
	giving                // give the container back to the kernel
	closed
)

// String is the phase as records and pause-list show it.
func (p phase) String() string {
	return [...]string{"opening", "held", "steps", "waiting", "verdict", "verdict", "closed"}[p]
}

// Results of a step, as case.json holds them.
const (
	stepOK        = "ok"
	stepFailed    = "failed"
	stepTimeout   = "timeout"
	stepPreempted = "preempted"
	stepSkipped   = "skipped"
)

// state is everything that decides what a case does next. It is a value:
// transition returns a new one.
type state struct {
	phase  phase
	hold   bool // the case stops its container
	frozen bool // the container stands still now
	lent   bool // room was borrowed for the present step

	rule    *policy.Rule
	plan    policy.Plan
	op      int                   // next operation
	steps   []casebook.StepRecord // parallel to plan.Steps
	done    []casebook.StepRecord // what earlier plans of this case did
	doneOf  []policy.Step         // the steps of done
	skipAll string                // why the remaining steps are skipped; "" if they are not

	heldAt   time.Time
	until    time.Time // end of waiting
	verdict  policy.VerdictKind
	fallback bool // verdict is the rule's otherwise already
	raise    policy.Size
	operator string
	why      string
	outcome  casebook.Outcome
}

// eventKind is what happened to a case.
type eventKind uint8

const (
	evHeld       eventKind = iota // the container stands still
	evBeside                      // the case does not hold: it runs beside its container
	evFailed                      // the container could not be stopped
	evPlanned                     // rule and plan are there
	evOp                          // the present operation ended
	evVerdict                     // the verdict was carried out, or not
	evGiven                       // the container is the kernel's again
	evDeadline                    // the steps' deadline passed
	evWaited                      // hold-for passed
	evOperator                    // an operator's verdict
	evExtend                      // an operator wants more time
	evGiveUp                      // budget, node rail or the daemon's end: the kernel shall decide
	evOtherwise                   // the daemon ends in good order: the rule's otherwise, now
	evEscalate                    // the limit was reached during a case that did not hold
	evLimitAgain                  // the limit was reached during a running step
	evThawed                      // somebody else thawed the container
	evGone                        // the container vanished
)

// event is one thing that happened to a case, with what belongs to it.
type event struct {
	kind    eventKind
	at      time.Time
	err     error
	why     string
	rule    *policy.Rule
	plan    policy.Plan
	step    casebook.StepRecord // evOp of a step
	verdict policy.VerdictKind
	raise   policy.Size
	by      time.Duration // evExtend
	who     string

	// more says that what interrupted the work follows at once: nothing is
	// decided before it.
	more bool
	ack  chan<- struct{} // closed once the event is taken in

	fired *trigger // evEscalate: what the case is about from now on
}

// interrupts reports whether the event ends a step that is running.
func (e event) interrupts(s state) bool {
	switch e.kind {
	case evOperator, evGiveUp, evOtherwise, evGone:
		return true
	case evDeadline:
		return s.phase == stepping
	case evEscalate:
		return !s.hold
	case evLimitAgain:
		return s.phase == stepping && s.hold && !s.frozen
	case evThawed:
		return s.frozen
	}
	return false
}

// transition decides. It is pure.
func transition(s state, e event) state {
	if s.phase == closed {
		return s
	}
	s = s.after(e)
	if s.phase == waiting && s.until.IsZero() {
		s.until = e.at.Add(s.rule.Verdict.HoldFor)
	}
	return s
}

func (s state) after(e event) state {
	switch e.kind {
	case evHeld:
		s.frozen, s.heldAt, s.phase = true, e.at, planning
	case evBeside:
		s.phase = planning
	case evFailed:
		return s.giveBack(fmt.Sprintf("could not be held: %v", e.err))
	case evPlanned:
		return s.planned(e)
	case evOp:
		return s.opEnded(e).settleUnless(e.more)
	case evDeadline:
		if s.phase != stepping {
			return s // the steps are over
		}
		return s.endSteps(fmt.Sprintf("the steps' deadline of %s passed", s.rule.Verdict.Deadline)).settle()
	case evOtherwise:
		return s.endSteps(e.why).settle()
	case evWaited:
		if s.phase == waiting {
			s = s.otherwise(fmt.Sprintf("no operator decided within %s", s.rule.Verdict.HoldFor))
		}
	case evExtend:
		if s.phase == waiting {
			s.until = s.until.Add(e.by)
		}
	case evOperator:
		return s.ordered(e).settle()
	case evVerdict:
		return s.judged(e)
	case evGiveUp:
		return s.giveBack(e.why)
	case evGiven:
		s.phase, s.outcome = closed, casebook.OutcomeKernel
	case evLimitAgain:
		return s.settle()
	case evThawed:
		if s.frozen {
			return s.giveBack(e.why)
		}
	case evEscalate:
		if !s.hold {
			return s.escalate(e)
		}
	case evGone:
		s.phase, s.outcome, s.why = closed, casebook.OutcomeGone, e.why
		s.skipFrom("the container is gone")
	}
	return s
}

// planned starts the plan's operations. What an earlier plan of the same case
// already did is not done again.
func (s state) planned(e event) state {
	s.rule, s.plan, s.op, s.skipAll = e.rule, e.plan, 0, ""
	s.steps = make([]casebook.StepRecord, len(e.plan.Steps))
	for i, st := range e.plan.Steps {
		s.steps[i] = casebook.StepRecord{Name: st.Name, Action: st.Action}
		if j := s.alreadyDone(st); j >= 0 {
			s.steps[i].Result, s.steps[i].Why = stepSkipped, "done before the container was held"
		}
	}
	if s.rule.Mode == policy.Observe {
		return s.observed()
	}
	s.phase = stepping
	if s.operator != "" {
		s.skipAll = s.why
	}
	return s.settleUnless(e.more)
}

// observed closes a case of a rule that only looks.
func (s state) observed() state {
	s.skipFrom("mode = \"observe\"")
	s.phase, s.outcome = closed, casebook.OutcomeNone
	s.why = fmt.Sprintf("observed only: the rule would have ended in %s", s.plan.Do)
	return s
}

func (s state) alreadyDone(st policy.Step) int {
	for i, d := range s.doneOf {
		if s.done[i].Result == stepOK && d.Action == st.Action && reflect.DeepEqual(d.Options, st.Options) {
			return i
		}
	}
	return -1
}

// endSteps skips what is left and wants the rule's otherwise.
func (s state) endSteps(why string) state {
	switch s.phase {
	case opening, planning:
		return s.giveBack(why)
	case stepping:
		s.skipAll = why
		return s.wantOtherwise(why)
	case waiting:
		return s.otherwise(why)
	}
	return s
}

// ordered takes an operator's verdict.
func (s state) ordered(e event) state {
	if s.phase > deciding || s.phase == deciding {
		return s
	}
	s.verdict, s.raise, s.operator, s.fallback = e.verdict, e.raise, e.who, false
	s.why = fmt.Sprintf("%s ordered by %s", e.verdict, e.who)
	switch s.phase {
	case stepping:
		s.skipAll = s.why
	case waiting:
		s.phase = deciding
	}
	return s
}
