package policy

import (
	"fmt"
	"strings"
)

// Lines is the plan for people, one numbered line for each operation and the
// verdict, as `explain` prints and case.json keeps it.
func (p Plan) Lines() []string {
	var out []string
	line := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("%2d. ", len(out)+1)+fmt.Sprintf(format, args...))
	}
	held := false
	for _, op := range p.Ops {
		switch op.Kind {
		case OpFreeze:
			held = true
			line("freeze")
		case OpThaw:
			held = false
			line("thaw")
		case OpRaise:
			line("raise: borrow %s for %s", FormatBytes(op.Bytes), p.Steps[op.Step].Name)
		case OpRestore:
			line("restore: give it back")
		case OpStep:
			line("%s", stepLine(p.Steps[op.Step], held))
		}
	}
	line("verdict: %s", p.verdictLine())
	for _, n := range p.Notes {
		out = append(out, "    note: "+n)
	}
	return out
}

// stepLine is a step in words: heap-dump, running, 2m at most, if core failed.
func stepLine(s Step, held bool) string {
	parts := []string{s.Name}
	if s.Action != s.Name {
		parts[0] += " (" + s.Action + ")"
	}
	if held {
		parts = append(parts, "standing still")
	} else {
		parts = append(parts, "running")
	}
	parts = append(parts, FormatDuration(s.Timeout)+" at most")
	if len(s.IfFailed) > 0 {
		parts = append(parts, "only if "+strings.Join(s.IfFailed, " or ")+" failed")
	}
	switch s.OnFailure {
	case ToVerdict:
		parts = append(parts, "on failure to the verdict")
	case ToFallback:
		parts = append(parts, "on failure to otherwise")
	}
	return "step " + strings.Join(parts, ", ")
}

func (p Plan) verdictLine() string {
	s := verdictWords(p.Do, p.Verdict, p.Granted)
	if p.Do == None && p.Hold {
		s += ": thaw it and leave it alone"
	}
	if p.Why != "" {
		s += " (" + p.Why + ")"
	}
	if p.Verdict.Otherwise != p.Do {
		s += "; otherwise " + verdictWords(p.Verdict.Otherwise, p.Verdict, 0)
	}
	return s
}

func verdictWords(do VerdictKind, v Verdict, granted uint64) string {
	switch do {
	case Kill:
		return killWords(v)
	case Resume:
		s := "resume with " + v.Raise.String() + " more room"
		if granted > 0 && v.Raise.Percent > 0 {
			s += " (" + FormatBytes(granted) + ")"
		}
		if v.RaiseFor > 0 {
			s += " for " + FormatDuration(v.RaiseFor)
		}
		return s
	case Hold:
		return "hold for an operator, " + FormatDuration(v.HoldFor) + " at most"
	}
	return "none"
}

func killWords(v Verdict) string {
	what := "kill the container"
	if v.Kill == KillLargest {
		what = "kill the largest process"
	}
	if v.TermGrace > 0 {
		what += " after SIGTERM and " + FormatDuration(v.TermGrace) + " with " + v.GraceRaise().String() + " more room"
	}
	return what
}
