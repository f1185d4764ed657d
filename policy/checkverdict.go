package policy

import "time"

// checkVerdict says what is wrong with a rule's end.
func (d *decoder) checkVerdict(r *Rule, n *node) {
	v := &r.Verdict
	d.checkRoom(n, "raise", "verdict.raise", v.Raise)
	resumes := v.Do == Resume || v.Otherwise == Resume
	if resumes && v.Raise.IsZero() && !n.has("raise") {
		d.errorf(n.child("do").val, "verdict.raise", `add raise = "25%"`, "is required for resume: without room it stops again at once")
	}
	if v.Do == Resume && v.Resumes < 1 || v.Resumes < 0 {
		d.errorf(n.child("resumes").val, "verdict.resumes", `to never resume, write do = "kill"`, "must be at least 1")
	}
	if v.Do == Resume && v.Otherwise == Resume {
		d.errorf(n.child("otherwise").val, "verdict.otherwise", `write otherwise = "kill"`, "must differ from do: it is what happens when a resume is no longer allowed")
	}
	if r.Trigger.Hold {
		if v.Do == None || v.Otherwise == None {
			key := "do"
			if v.Do != None {
				key = "otherwise"
			}
			d.errorf(n.child(key).val, "verdict."+key, `"none" is only for hold = false`, "must say what becomes of a container that stands still")
		}
	} else if v.Do == Hold {
		d.errorf(n.child("do").val, "verdict.do", "add hold = true to [rule.trigger]", `"hold" has nothing to hold: the trigger has hold = false`)
	}
	if v.Do == Hold && v.HoldFor <= 0 {
		d.errorf(n.child("hold-for").val, "verdict.hold-for", "", "must be more than 0s: an operator needs time")
	}
	if v.Deadline <= 0 {
		d.errorf(n.child("deadline").val, "verdict.deadline", "", "must be more than 0s")
	}
	if r.Trigger.On == OnPressure && (v.Do == Kill || v.Otherwise == Kill) {
		d.report(SeverityWarning, n.key, "verdict.do", "", "pressure alone is a poor reason to kill: reclaim elsewhere can cause it")
	}
}

// checkTimes compares the worst case of a rule with its deadlines. They are
// warnings: a step seldom takes all of its time.
func (d *decoder) checkTimes(r *Rule, n *node) {
	if r.Mode == Off {
		return
	}
	worst := worstSteps(r)
	warn := func(key, hint, format string, args ...any) {
		c := n
		for _, part := range []string{"verdict", "trigger"} {
			if n.child(part).has(pathEnd(key)) {
				c = n.child(part)
			}
		}
		d.report(SeverityWarning, c.child(pathEnd(key)).key, key, hint, format, args...)
	}
	steps := FormatDuration(worst)
	if worst > r.Verdict.Deadline {
		warn("verdict.deadline", "", "the steps may take %s, longer than the deadline of %s: the last ones may not run",
			steps, FormatDuration(r.Verdict.Deadline))
	}
	if !r.Trigger.Hold {
		return
	}
	held := worstHold(r)
	if r.ResumeWithin > 0 && (r.Verdict.Do == Resume || r.Verdict.Otherwise == Resume) && held > r.ResumeWithin {
		warn("resume-within", "", "the hold may last %s, longer than %s: then it ends in otherwise, not in a resume",
			FormatDuration(held), FormatDuration(r.ResumeWithin))
	}
	if r.ProbeDeadline > 0 && held > r.ProbeDeadline {
		warn("probe-deadline", "", "the hold may last %s: a liveness probe may kill the container after %s",
			FormatDuration(held), FormatDuration(r.ProbeDeadline))
	}
}

// worstSteps is how long all steps take if each takes all of its time.
func worstSteps(r *Rule) time.Duration {
	var sum time.Duration
	for _, s := range withSnapshot(r.Steps) {
		sum = addTime(sum, s.Timeout)
	}
	return sum
}

// worstHold is the longest that a rule can hold a container: its steps, as
// long as the deadline lets them, and the wait for an operator.
func worstHold(r *Rule) time.Duration {
	held := min(worstSteps(r), r.Verdict.Deadline)
	if r.Verdict.Do == Hold {
		held = addTime(held, r.Verdict.HoldFor)
	}
	return held
}
