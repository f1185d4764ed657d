package policy

import (
	"fmt"
	"slices"
)

// Env is what a node's arbiter.toml and memory add to what Decode can check. A
// zero figure is not known, and nothing is said about it.
type Env struct {
	NodeBytes         uint64   // the node's memory
	BorrowBudgetBytes uint64   // [budget] borrowed
	Uploads           []string // names of [upload.NAME]; nil: not known
}

// Lint is what a policy that Decode took may run into on a node: warnings only,
// since the daemon loads it all the same. Decode's own warnings are not
// repeated.
func Lint(p *Policy, env Env) Diagnostics {
	var out Diagnostics
	for _, r := range p.Rules {
		if r.Mode != Off {
			out = append(out, lintRule(r, env)...)
		}
	}
	return out
}

func lintRule(r *Rule, env Env) Diagnostics {
	var out Diagnostics
	warn := func(pos Position, key, hint, format string, args ...any) {
		out = append(out, Diagnostic{
			Severity: SeverityWarning, Pos: pos, Rule: r.Name, Key: key,
			Message: fmt.Sprintf(format, args...), Hint: hint,
		})
	}
	if least := r.Match.LimitAtLeast.Bytes; env.NodeBytes > 0 && least > env.NodeBytes {
		warn(r.Pos, "match.limit-at-least", "", "%s is more than this node's memory of %s: no container here matches",
			FormatBytes(least), FormatBytes(env.NodeBytes))
	}
	limit := worstLimit(r, env)
	lintBorrowed(r, limit, env, warn)
	if most := resumedTo(r, limit); env.NodeBytes > 0 && most > env.NodeBytes {
		warn(r.Pos, "verdict.raise", "", "after %d resumes with %s more room each a container may use up to %s, and this node has %s",
			r.Verdict.Resumes, r.Verdict.Raise, FormatBytes(most), FormatBytes(env.NodeBytes))
	}
	for _, s := range r.Steps {
		if o, ok := s.Options.(UploadOptions); ok && env.Uploads != nil && !slices.Contains(env.Uploads, o.To) {
			warn(s.Pos, "upload.to", didYouMean(o.To, env.Uploads), "arbiter.toml has no [upload.%s]", o.To)
		}
	}
	return out
}

// resumedTo is the limit of a container that was resumed as often as it may be.
func resumedTo(r *Rule, limit uint64) uint64 {
	if r.Verdict.Do != Resume && r.Verdict.Otherwise != Resume {
		return 0
	}
	each := float64(r.Verdict.Raise.Of(limit))
	return uint64(min(float64(limit)+each*float64(r.Verdict.Resumes), 1<<63))
}

// lintBorrowed compares what the rule's steps may borrow with the budget.
func lintBorrowed(r *Rule, limit uint64, env Env, warn func(Position, string, string, string, ...any)) {
	budget := env.BorrowBudgetBytes
	if budget == 0 {
		return
	}
	if need := r.Verdict.Raise.Of(limit); need > budget && (r.Verdict.Do == Resume || r.Verdict.Otherwise == Resume) {
		warn(r.Pos, "verdict.raise", "raise [budget] borrowed", "a resume takes up to %s, and the budget lends %s: it fails then",
			FormatBytes(need), FormatBytes(budget))
	}
	var kept uint64
	for _, s := range r.Steps {
		key, size := "step.raise", s.Raise
		if o, ok := s.Options.(RaiseOptions); ok {
			key, size = "raise.by", o.By
			kept = add(kept, o.By.Of(limit))
		}
		need := kept
		if key == "step.raise" {
			need = add(kept, size.Of(limit))
		}
		if size.IsZero() || need <= budget {
			continue
		}
		of := ""
		if size.Percent > 0 {
			of = " for a container with a limit of " + FormatBytes(limit)
		}
		warn(s.Pos, key, "raise [budget] borrowed, or lower limit-at-most",
			"%s borrows up to %s%s, and the budget lends %s: the step fails then",
			s.Name, FormatBytes(need), of, FormatBytes(budget))
	}
}

// worstLimit is the largest limit of a container that the rule is surely meant
// for: limit-at-most if given, else limit-at-least. Without either, a share of
// the limit is not judged.
func worstLimit(r *Rule, env Env) uint64 {
	limit := r.Match.LimitAtMost.Bytes
	if limit == 0 {
		limit = r.Match.LimitAtLeast.Bytes
	}
	if env.NodeBytes > 0 {
		limit = min(limit, env.NodeBytes)
	}
	return limit
}
