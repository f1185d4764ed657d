package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/arbiterd/arbiter/cri"
)

// unreachable warns of rules that no container can get, since an earlier rule
// takes all that they match, or since they exclude all that they match. It
// finds the plain cases (the earlier rule asks for less, glob by glob) and
// never warns wrongly.
func (x *ruleIndex) unreachable() Diagnostics {
	const workers = 4
	found := make([]*Diagnostic, len(x.entries))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(x.entries); i += workers {
				found[i] = x.unreachableRule(i)
			}
		})
	}
	wg.Wait()
	var out Diagnostics
	for _, d := range found {
		if d != nil {
			out = append(out, *d)
		}
	}
	return out
}

func (x *ruleIndex) unreachableRule(i int) *Diagnostic {
	r := x.entries[i].rule
	warn := func(key, hint, format string, args ...any) *Diagnostic {
		return &Diagnostic{
			Severity: SeverityWarning, Pos: r.Pos, Rule: r.Name, Key: key,
			Message: fmt.Sprintf(format, args...), Hint: hint,
		}
	}
	if key := r.Match.excludesItself(); key != "" {
		return warn("match.not", "", "can never match: match.not.%s excludes all that match.%s asks for", key, key)
	}
	if by := x.taker(i, r); by != nil {
		return warn("match", "move it before that rule, or make that one narrower",
			"can never win: %s at %s takes every container that it matches", by.Name, by.Pos)
	}
	return nil
}

// closerLooks bounds the work for one rule: who has more earlier rules than
// this that match the same containers is not told of all that take it.
const closerLooks = 100

// taker is the first rule before rule i that takes all that it matches, or nil.
// Such a rule matches in particular the witness, so that only the few that do
// need a closer look.
func (x *ruleIndex) taker(i int, r *Rule) *Rule {
	w := r.Match.witness()
	s := &subject{c: &w, limit: r.Match.witnessLimit()}
	looks := 0
	for e := range x.candidates(&w) {
		if e.rule == r || looks == closerLooks {
			return nil
		}
		if e.trigger != x.entries[i].trigger && !e.rule.final() || e.matcher.first(s) != nil {
			continue
		}
		looks++
		if e.rule.takes(r) {
			return e.rule
		}
	}
	return nil
}

// witness is a container that the match may be for: if an earlier rule takes
// all that the match does, it matches this one. Runtimes are left out, and so
// is what the match excludes.
func (m *Match) witness() cri.Container {
	one := func(globs []string) string {
		if len(globs) == 0 {
			return ""
		}
		return example(globs[0])
	}
	all := func(globs map[string]string) map[string]string {
		out := make(map[string]string, len(globs))
		for k, g := range globs {
			out[k] = example(g)
		}
		return out
	}
	return cri.Container{
		Name: one(m.Container), Image: one(m.Image), Cgroup: one(m.Cgroup),
		Pod: cri.Pod{
			Namespace: one(m.Namespace), Name: one(m.Pod), QoS: one(m.QoS),
			Labels: all(m.Labels), Annotations: all(m.Annotations),
		},
	}
}

// example is a text that a glob matches.
func example(glob string) string {
	return strings.NewReplacer("**", "x", "*", "x", "?", "x").Replace(glob)
}

func (m *Match) witnessLimit() Limit {
	if !m.LimitAtMost.IsZero() {
		return LimitOf(m.LimitAtMost.Bytes)
	}
	return LimitOf(math.MaxInt64)
}

// excludesItself is the first key of which not excludes all that the match asks
// for, or empty.
func (m *Match) excludesItself() string {
	if m.Not == nil {
		return ""
	}
	not := m.Not.globs()
	for i, g := range m.globs() {
		if len(g.globs) > 0 && len(not[i].globs) > 0 && coversGlobs(not[i].globs, g.globs, g.key == "cgroup") {
			return g.key
		}
	}
	return ""
}

// takes reports whether every container that r matches goes to e instead.
func (e *Rule) takes(r *Rule) bool {
	if !e.Trigger.Same(r.Trigger) && !e.final() || r.Mode == Off && e.Mode != Off {
		return false // an exemption is of all triggers: another rule of one trigger does not take it
	}
	if e.matching().needLimit && !r.matching().needLimit {
		return false // e is never for a container without a limit
	}
	return e.Match.covers(&r.Match)
}

// covers reports whether all that o matches m matches too. It may say no where
// it is so, never yes where it is not.
func (m *Match) covers(o *Match) bool {
	outer, inner := m.globs(), o.globs()
	for i, g := range outer {
		if !coversGlobs(g.globs, inner[i].globs, g.key == "cgroup") {
			return false
		}
	}
	if !coversMap(m.Labels, o.Labels) || !coversMap(m.Annotations, o.Annotations) {
		return false
	}
	if m.LimitAtLeast.Bytes > o.LimitAtLeast.Bytes {
		return false
	}
	if !m.LimitAtMost.IsZero() && (o.LimitAtMost.IsZero() || o.LimitAtMost.Bytes > m.LimitAtMost.Bytes) {
		return false
	}
	return m.Not == nil || o.Not != nil && o.Not.coversNot(m.Not)
}

// coversNot reports whether all that o excludes is excluded by m: each of its
// keys must be covered by the same key of m alone.
func (m *Match) coversNot(o *Match) bool {
	mine := m.globs()
	for i, g := range o.globs() {
		if len(g.globs) > 0 && (len(mine[i].globs) == 0 || !coversGlobs(mine[i].globs, g.globs, g.key == "cgroup")) {
			return false
		}
	}
	for _, pair := range [][2]map[string]string{{o.Labels, m.Labels}, {o.Annotations, m.Annotations}} {
		for k, g := range pair[0] {
			if have, ok := pair[1][k]; !ok || !coversGlob(have, g, false) {
				return false
			}
		}
	}
	return (o.LimitAtLeast == Size{} || o.LimitAtLeast == m.LimitAtLeast) &&
		(o.LimitAtMost == Size{} || o.LimitAtMost == m.LimitAtMost)
}

// coversGlobs: no globs ask for nothing; else each of inner must be covered.
func coversGlobs(outer, inner []string, path bool) bool {
	if len(outer) == 0 {
		return true
	}
	if len(inner) == 0 {
		return false
	}
	return !slices.ContainsFunc(inner, func(in string) bool {
		return !slices.ContainsFunc(outer, func(out string) bool { return coversGlob(out, in, path) })
	})
}

func coversMap(outer, inner map[string]string) bool {
	for k, g := range outer {
		if in, ok := inner[k]; !ok || !coversGlob(g, in, false) {
			return false
		}
	}
	return true
}

// coversGlob reports whether outer matches all that inner does.
func coversGlob(outer, inner string, path bool) bool {
	if outer == inner {
		return true
	}
	if literal(outer) {
		return false
	}
	g := compileGlob(outer, path)
	if literal(inner) {
		return g.match(inner)
	}
	// A prefix or suffix before anything covers whatever keeps to it.
	at := strings.IndexAny(inner, "*?")
	end := inner[strings.LastIndexAny(inner, "*?")+1:]
	return g.shape == globAny && strings.HasPrefix(inner[:at], g.prefix) && strings.HasSuffix(end, g.suffix)
}

func literal(glob string) bool { return !strings.ContainsAny(glob, "*?") }
