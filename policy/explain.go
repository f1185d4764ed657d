package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/arbiterd/arbiter/cri"
)

// Explain says what the policy would do with a container: for each trigger the
// rule that wins, its plan and what that may cost at worst, and why every other
// rule lost. Of the facts it uses what is known; the trigger it takes from the
// rules. Where the runtime is not known ("") a rule that asks for it is told
// together with those that come next.
func Explain(p *Policy, c cri.Container, f Facts) string {
	f.Container = c
	var b strings.Builder
	describe(&b, c, f)
	candidates := p.For(c, f.Limit)
	winners := winnersOf(candidates, f.Runtime)
	switch {
	case len(winners) == 0:
		b.WriteString("\nno rule is for it: it is not guarded\n")
	case winners[0].Mode == Off:
		fmt.Fprintf(&b, "\nrule       %s (%s), mode off: it is exempt\n", winners[0].Name, winners[0].Pos)
	default:
		for _, r := range winners {
			explainRule(&b, r, f)
		}
	}
	explainLosers(&b, p, winners, f)
	return b.String()
}

func describe(b *strings.Builder, c cri.Container, f Facts) {
	fmt.Fprintf(b, "container  %s\n", c)
	if c.Cgroup != "" && c.String() != c.Cgroup {
		fmt.Fprintf(b, "cgroup     %s\n", c.Cgroup)
	}
	limit := "none"
	if n, ok := f.Limit.Bytes(); ok {
		limit = FormatBytes(n)
	}
	if f.LimitCgroup != "" && f.LimitCgroup != c.Cgroup {
		limit += " at " + f.LimitCgroup
	}
	fmt.Fprintf(b, "limit      %s\n", limit)
	fmt.Fprintf(b, "runtime    %s\n", cmp.Or(f.Runtime, "decided when a trigger fires"))
}

// winnersOf are the rules that get the container, one a trigger; with the
// runtime unknown, all that may. An exempting rule stands alone.
func winnersOf(candidates []*Rule, runtime string) []*Rule {
	if runtime == "" {
		return candidates
	}
	var out []*Rule
	for _, list := range ByTrigger(candidates) {
		if r := Pick(list, runtime); r != nil {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		if r := Pick(candidates, runtime); r != nil {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *Rule) int { return slices.Index(candidates, a) - slices.Index(candidates, b) })
	return slices.Compact(out)
}

func explainRule(b *strings.Builder, r *Rule, f Facts) {
	f.Trigger = r.Trigger.On
	plan := MakePlan(r, f)
	fmt.Fprintf(b, "\nrule       %s (%s)\n", r.Name, r.Pos)
	fmt.Fprintf(b, "trigger    %s\n", r.Trigger)
	switch r.Mode {
	case Off:
		b.WriteString("mode       off: exempt\n")
	case Observe:
		b.WriteString("mode       observe: nothing is held or done, this is written down:\n")
	}
	if f.Runtime == "" && !r.matching().decided() {
		fmt.Fprintf(b, "only if    the runtime agrees: %s\n", runtimeWords(r))
	}
	for _, l := range plan.Lines() {
		b.WriteString("  " + l + "\n")
	}
	fmt.Fprintf(b, "holds      %s at most\n", FormatDuration(plan.MaxHold))
	fmt.Fprintf(b, "borrows    %s at most\n", FormatBytes(plan.Borrowed))
	if r.ProbeDeadline > 0 && plan.MaxHold > r.ProbeDeadline {
		fmt.Fprintf(b, "careful    a liveness probe may kill it after %s\n", FormatDuration(r.ProbeDeadline))
	}
	if r.ResumeWithin > 0 && plan.MaxHold > r.ResumeWithin && plan.Do == Resume {
		fmt.Fprintf(b, "careful    held longer than %s it is not resumed: otherwise %s\n",
			FormatDuration(r.ResumeWithin), verdictWords(plan.Verdict.Otherwise, plan.Verdict, 0))
	}
}

func runtimeWords(r *Rule) string {
	var parts []string
	if len(r.Match.Runtime) > 0 {
		parts = append(parts, "one of "+strings.Join(r.Match.Runtime, ", "))
	}
	if r.Match.Not != nil && len(r.Match.Not.Runtime) > 0 {
		parts = append(parts, "none of "+strings.Join(r.Match.Not.Runtime, ", "))
	}
	return strings.Join(parts, ", ")
}

// explainLosers says why each other rule is not for the container.
func explainLosers(b *strings.Builder, p *Policy, winners []*Rule, f Facts) {
	s := &subject{c: &f.Container, limit: f.Limit, runtime: f.Runtime}
	head := "\nnot these\n"
	for _, r := range p.Rules {
		if slices.Contains(winners, r) {
			continue
		}
		b.WriteString(head)
		head = ""
		fmt.Fprintf(b, "  %s: %s: %s\n", r.Pos, r.Name, r.lost(s, winners))
	}
}

// lost is why a rule is not among the winners.
func (r *Rule) lost(s *subject, winners []*Rule) string {
	if miss := r.miss(s, r.Trigger.On); miss != nil {
		return miss.String()
	}
	for _, w := range winners {
		if s.runtime == "" && !w.matching().decided() {
			continue // it may not win at all
		}
		if w.final() || w.Trigger.Same(r.Trigger) {
			return fmt.Sprintf("it matches, but %s comes first", w.Name)
		}
	}
	return "it matches, but an earlier rule comes first"
}

// String is a trigger in words: usage at 90%, growth to the limit within 30s.
func (t Trigger) String() string {
	percent := func(p float64) string { return Size{Percent: p}.String() }
	switch t.On {
	case OnUsage:
		return "usage at " + percent(t.At)
	case OnPressure:
		kind, share := "full", t.Full
		if t.Some > 0 {
			kind, share = "some", t.Some
		}
		return fmt.Sprintf("pressure %s %s over %s", kind, percent(share), FormatDuration(t.Over))
	case OnGrowth:
		return "growth, limit within " + FormatDuration(t.LimitWithin)
	}
	return string(t.On)
}
