package arbiter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

// script drives a case through transition without a kernel: each operation
// ends as told, and what was done is noted.
type script struct {
	fail     map[string]error // operation or step name → how it ends
	before   map[string]event // operation or step name → what arrives while it runs
	verdicts map[policy.VerdictKind]error
	waiting  event // what ends the wait for an operator
	did      []string
}

func (x *script) run(t *testing.T, s state, rule *policy.Rule, plan policy.Plan) state {
	t.Helper()
	now := time.Unix(1e9, 0)
	for range 200 {
		now = now.Add(time.Second)
		switch s.phase {
		case opening:
			if !s.hold {
				s = transition(s, event{kind: evBeside, at: now})
				continue
			}
			x.did = append(x.did, "hold")
			if err := x.fail["hold"]; err != nil {
				s = transition(s, event{kind: evFailed, at: now, err: err})
				continue
			}
			s = transition(s, event{kind: evHeld, at: now})
		case planning:
			s = transition(s, event{kind: evPlanned, at: now, rule: rule, plan: plan})
		case stepping:
			s = x.op(s, now)
		case waiting:
			x.did = append(x.did, "wait for operator")
			s = transition(s, x.waiting)
		case deciding:
			x.did = append(x.did, "verdict "+string(s.verdict))
			s = transition(s, event{kind: evVerdict, at: now, err: x.verdicts[s.verdict]})
		case giving:
			x.did = append(x.did, "give back")
			s = transition(s, event{kind: evGiven, at: now})
		case closed:
			return s
		}
	}
	t.Fatalf("the case does not end; did %v", x.did)
	return s
}

func (x *script) op(s state, now time.Time) state {
	op := s.plan.Ops[s.op]
	name := string(op.Kind)
	if op.Kind == policy.OpStep {
		name = s.plan.Steps[op.Step].Name
	}
	x.did = append(x.did, name)
	ev := event{kind: evOp, at: now, err: x.fail[name]}
	async, interrupted := x.before[name]
	delete(x.before, name)
	if op.Kind == policy.OpStep {
		ev.step = casebook.StepRecord{Name: name, Action: s.plan.Steps[op.Step].Action, Result: stepOK}
		if ev.err != nil {
			ev.step.Result = stepFailed
		}
		if interrupted && async.interrupts(s) {
			ev.step.Result, ev.more = stepPreempted, true
		}
	}
	s = transition(s, ev)
	if interrupted {
		s = transition(s, async)
	}
	return s
}

// testPlan is snapshot, a heap dump that runs with borrowed room, and a core
// that is taken if the heap dump fails.
func testPlan(v policy.Verdict, onFailure policy.OnFailure) (*policy.Rule, policy.Plan) {
	steps := []policy.Step{
		{Action: "snapshot", Name: "snapshot", OnFailure: policy.Continue},
		{Action: "heap-dump", Name: "heap-dump", OnFailure: onFailure},
		{Action: "core-dump", Name: "core-dump", OnFailure: policy.Continue, IfFailed: []string{"heap-dump"}},
	}
	rule := &policy.Rule{Name: "r", Mode: policy.Enforce, Verdict: v, Steps: steps[1:]}
	return rule, policy.Plan{Rule: "r", Hold: true, Steps: steps, Verdict: v, Do: v.Do, Ops: []policy.Op{
		{Kind: policy.OpStep, Step: 0},
		{Kind: policy.OpRaise, Step: 1, Bytes: 1 << 20},
		{Kind: policy.OpThaw, Step: 1},
		{Kind: policy.OpStep, Step: 1},
		{Kind: policy.OpFreeze, Step: 1},
		{Kind: policy.OpRestore, Step: 1},
		{Kind: policy.OpStep, Step: 2},
	}}
}

func TestTransition(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	kill := policy.Verdict{Do: policy.Kill, Otherwise: policy.Kill}
	resume := policy.Verdict{Do: policy.Resume, Otherwise: policy.Kill}
	hold := policy.Verdict{Do: policy.Hold, Otherwise: policy.Kill, HoldFor: time.Minute}
	for _, tc := range []struct {
		name      string
		verdict   policy.Verdict
		onFailure policy.OnFailure
		beside    bool
		x         script
		did       string
		outcome   casebook.Outcome
		results   string // of the steps
		why       string // part of it
	}{{
		name: "all goes well", verdict: kill,
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok ok skipped", why: "as the rule says",
	}, {
		name: "the container cannot be stopped", verdict: kill, x: script{fail: map[string]error{"hold": boom}},
		did: "hold, give back", outcome: casebook.OutcomeKernel, why: "could not be held: boom",
	}, {
		name: "a failed step brings its substitute", verdict: kill, x: script{fail: map[string]error{"heap-dump": boom}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, core-dump, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok failed ok",
	}, {
		name: "no room: the step fails without a thaw", verdict: kill, x: script{fail: map[string]error{"raise": boom}},
		did:     "hold, snapshot, raise, core-dump, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok failed ok",
	}, {
		name: "no thaw: what was lent is given back", verdict: kill, x: script{fail: map[string]error{"thaw": boom}},
		did:     "hold, snapshot, raise, thaw, restore, core-dump, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok failed ok",
	}, {
		name: "cannot be held again", verdict: resume, x: script{fail: map[string]error{"freeze": boom}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, give back",
		outcome: casebook.OutcomeKernel, results: "ok ok skipped", why: "could not be held again: boom",
	}, {
		name: "usage keeps what was lent", verdict: resume, x: script{fail: map[string]error{"restore": boom}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict resume",
		outcome: casebook.OutcomeResume, results: "ok ok skipped",
	}, {
		name: "on-failure = verdict", verdict: resume, onFailure: policy.ToVerdict, x: script{fail: map[string]error{"heap-dump": boom}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict resume",
		outcome: casebook.OutcomeResume, results: "ok failed skipped",
	}, {
		name: "on-failure = otherwise", verdict: resume, onFailure: policy.ToFallback, x: script{fail: map[string]error{"heap-dump": boom}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok failed skipped", why: "step heap-dump failed",
	}, {
		name: "deadline in the middle of a running step", verdict: resume,
		x:       script{before: map[string]event{"heap-dump": {kind: evDeadline}}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok preempted skipped", why: "deadline",
	}, {
		name: "an operator decides during the steps", verdict: kill,
		x:       script{before: map[string]event{"snapshot": {kind: evOperator, verdict: policy.Resume, who: "uid 0"}}},
		did:     "hold, snapshot, verdict resume",
		outcome: casebook.OutcomeResume, results: "preempted skipped skipped", why: "ordered by uid 0",
	}, {
		name: "the operator's word stands against the deadline", verdict: kill,
		x:       script{before: map[string]event{"snapshot": {kind: evOperator, verdict: policy.Resume, who: "uid 0"}, "verdict": {kind: evDeadline}}},
		did:     "hold, snapshot, verdict resume",
		outcome: casebook.OutcomeResume, results: "preempted skipped skipped",
	}, {
		name: "hold waits, and an operator resumes", verdict: hold,
		x:       script{waiting: event{kind: evOperator, verdict: policy.Resume, who: "uid 0"}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, wait for operator, verdict resume",
		outcome: casebook.OutcomeResume, results: "ok ok skipped",
	}, {
		name: "nobody decides", verdict: hold, x: script{waiting: event{kind: evWaited}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, wait for operator, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok ok skipped", why: "no operator decided within 1m0s",
	}, {
		name: "a verdict that fails becomes otherwise", verdict: resume,
		x:       script{verdicts: map[policy.VerdictKind]error{policy.Resume: boom}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict resume, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok ok skipped", why: "resume failed: boom",
	}, {
		name: "nothing works: the kernel decides", verdict: resume,
		x:       script{verdicts: map[policy.VerdictKind]error{policy.Resume: boom, policy.Kill: boom}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict resume, verdict kill, give back",
		outcome: casebook.OutcomeKernel, results: "ok ok skipped", why: "kill failed: boom",
	}, {
		name: "the container vanishes", verdict: kill, x: script{before: map[string]event{"heap-dump": {kind: evGone, why: "stopped"}}},
		did:     "hold, snapshot, raise, thaw, heap-dump",
		outcome: casebook.OutcomeGone, results: "ok preempted skipped", why: "stopped",
	}, {
		name: "the node runs out of memory", verdict: kill, x: script{before: map[string]event{"heap-dump": {kind: evGiveUp, why: "node"}}},
		did:     "hold, snapshot, raise, thaw, heap-dump, give back",
		outcome: casebook.OutcomeKernel, results: "ok preempted skipped", why: "node",
	}, {
		name: "somebody else thaws it", verdict: kill, x: script{before: map[string]event{"snapshot": {kind: evThawed, why: "thawed"}}},
		did:     "hold, snapshot, give back",
		outcome: casebook.OutcomeKernel, results: "preempted skipped skipped", why: "thawed",
	}, {
		name: "somebody else thaws what runs anyhow", verdict: kill, x: script{before: map[string]event{"heap-dump": {kind: evThawed, why: "thawed"}}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok ok skipped",
	}, {
		name: "the daemon stops", verdict: resume, x: script{before: map[string]event{"snapshot": {kind: evOtherwise, why: "stopping"}}},
		did:     "hold, snapshot, verdict kill",
		outcome: casebook.OutcomeKill, results: "preempted skipped skipped", why: "stopping",
	}, {
		name: "the daemon stops during the last step", verdict: kill, x: script{
			fail:   map[string]error{"heap-dump": boom},
			before: map[string]event{"core-dump": {kind: evOperator, verdict: policy.Resume, who: "uid 0"}}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, core-dump, verdict resume",
		outcome: casebook.OutcomeResume, results: "ok failed preempted", why: "ordered by uid 0",
	}, {
		name: "the raised limit is reached as well", verdict: kill,
		x:       script{fail: map[string]error{"heap-dump": boom}, before: map[string]event{"freeze": {kind: evLimitAgain}}},
		did:     "hold, snapshot, raise, thaw, heap-dump, freeze, restore, core-dump, verdict kill",
		outcome: casebook.OutcomeKill, results: "ok failed ok",
	}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			rule, plan := testPlan(tc.verdict, tc.onFailure)
			s := tc.x.run(t, state{hold: !tc.beside}, rule, plan)
			if diff := cmp.Diff(tc.did, strings.Join(tc.x.did, ", ")); diff != "" {
				t.Errorf("did (-want +got):\n%s", diff)
			}
			var results []string
			for _, r := range s.steps {
				results = append(results, r.Result)
			}
			if got := strings.Join(results, " "); got != tc.results {
				t.Errorf("steps %q, want %q", got, tc.results)
			}
			if s.outcome != tc.outcome {
				t.Errorf("outcome %s, want %s", s.outcome, tc.outcome)
			}
			if !strings.Contains(s.why, tc.why) {
				t.Errorf("why %q, want %q in it", s.why, tc.why)
			}
		})
	}
}

// A case that runs beside its container and meets the limit holds it, and does
// not do again what succeeded.
func TestTransitionEscalates(t *testing.T) {
	t.Parallel()
	rule, plan := testPlan(policy.Verdict{Do: policy.Kill, Otherwise: policy.Kill}, policy.Continue)
	beside := policy.Plan{Steps: plan.Steps[:2], Do: policy.None, Ops: []policy.Op{
		{Kind: policy.OpStep, Step: 0}, {Kind: policy.OpStep, Step: 1},
	}}
	s := transition(state{}, event{kind: evBeside})
	s = transition(s, event{kind: evPlanned, rule: rule, plan: beside})
	x := script{}
	s = x.op(s, time.Unix(1, 0))
	x.before = map[string]event{"heap-dump": {kind: evEscalate, why: "limit"}}
	s = x.op(s, time.Unix(2, 0))
	if s.phase != opening || !s.hold {
		t.Fatalf("after escalation: phase %s, hold %v", s.phase, s.hold)
	}
	s = x.run(t, s, rule, plan)
	want := "snapshot, heap-dump, hold, raise, thaw, heap-dump, freeze, restore, verdict kill"
	if got := strings.Join(x.did, ", "); got != want {
		t.Errorf("did %s\nwant %s", got, want)
	}
	var all []string
	for _, r := range append(s.done, s.steps...) {
		all = append(all, fmt.Sprintf("%s:%s", r.Name, r.Result))
	}
	want = "snapshot:ok heap-dump:preempted snapshot:skipped heap-dump:ok core-dump:skipped"
	if got := strings.Join(all, " "); got != want {
		t.Errorf("steps %s\nwant  %s", got, want)
	}
}

// A rule that observes changes nothing.
func TestTransitionObserves(t *testing.T) {
	t.Parallel()
	rule, plan := testPlan(policy.Verdict{Do: policy.Kill, Otherwise: policy.Kill}, policy.Continue)
	rule.Mode = policy.Observe
	x := script{}
	s := x.run(t, state{}, rule, plan)
	if len(x.did) != 0 || s.outcome != casebook.OutcomeNone || !strings.Contains(s.why, "would have ended in kill") {
		t.Errorf("did %v, outcome %s, why %q", x.did, s.outcome, s.why)
	}
}

// What comes while the container is being stopped does not keep it from being
// stopped.
func TestTransitionOpeningIsNotInterrupted(t *testing.T) {
	t.Parallel()
	s := state{phase: opening, hold: true}
	for _, kind := range []eventKind{evEscalate, evDeadline, evLimitAgain, evExtend} {
		ev := event{kind: kind, why: "echo"}
		if ev.interrupts(s) {
			t.Errorf("event %d interrupts the hold", kind)
		}
		if got := transition(s, ev); got.phase != opening {
			t.Errorf("event %d takes the case to %s", kind, got.phase)
		}
	}
}
