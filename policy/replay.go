package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Replayed is what a policy decides from recorded facts.
type Replayed struct {
	Rule   *Rule // nil: no rule is for the container
	Plan   Plan
	Misses []Miss // why the rules before it are not for the container
}

// Replay decides a recorded case again.
func Replay(p *Policy, f Facts) Replayed {
	rule, misses := p.Match(f.Container, f.Limit, f.Runtime, f.Trigger)
	r := Replayed{Rule: rule, Misses: misses}
	if rule != nil && rule.Mode != Off {
		r.Plan = MakePlan(rule, f)
	}
	return r
}

// Lines is the decision as DiffPlans compares it: the rule, then the plan.
func (r Replayed) Lines() []string {
	switch {
	case r.Rule == nil:
		return []string{RuleLine("", "")}
	case r.Rule.Mode == Off:
		return []string{RuleLine(r.Rule.Name, Off)}
	}
	return append([]string{RuleLine(r.Rule.Name, r.Rule.Mode)}, r.Plan.Lines()...)
}

// RuleLine is the first line of a decision: for a record, RuleLine(rule, mode)
// followed by its plan is what Replayed.Lines is compared with.
func RuleLine(name string, mode Mode) string {
	switch {
	case name == "":
		return "rule: none, not guarded"
	case mode == Off:
		return fmt.Sprintf("rule: %s, off, exempt", name)
	}
	return fmt.Sprintf("rule: %s, %s", name, mode)
}

var lineNumber = regexp.MustCompile(`^ *[0-9]+\. `)

// DiffPlans compares two decisions line by line, without their numbers: a line
// that only the first has begins with "-", one that only the second has with
// "+". It is empty if they are the same.
func DiffPlans(before, after []string) string {
	a, b := unnumbered(before), unnumbered(after)
	if slices.Equal(a, b) {
		return ""
	}
	common := commonTail(a, b)
	var out strings.Builder
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out.WriteString("  " + a[i] + "\n")
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out.WriteString("- " + a[i] + "\n")
			i++
		default:
			out.WriteString("+ " + b[j] + "\n")
			j++
		}
	}
	return out.String()
}

func unnumbered(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = strings.TrimSpace(lineNumber.ReplaceAllString(l, ""))
	}
	return out
}

// commonTail is the length of the longest common subsequence of a[i:] and b[j:].
func commonTail(a, b []string) [][]int {
	t := make([][]int, len(a)+1)
	for i := range t {
		t[i] = make([]int, len(b)+1)
	}
	for i, v := range slices.Backward(a) {
		for j := len(b) - 1; j >= 0; j-- {
			if v == b[j] {
				t[i][j] = t[i+1][j+1] + 1
			} else {
				t[i][j] = max(t[i+1][j], t[i][j+1])
			}
		}
	}
	return t
}
