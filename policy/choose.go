package policy

import (
	"slices"

	"github.com/arbiterd/arbiter/cri"
)

// matching is the compiled match of a rule; rules that Decode made have it.
func (r *Rule) matching() *matcher {
	if r.compiled != nil {
		return r.compiled
	}
	return compileRule(r)
}

// final reports whether no later rule is tried once this one matched. A rule
// that observes and asks for the runtime is so for its own trigger only.
func (r *Rule) final() bool {
	return r.Mode == Off || r.Mode == Observe && r.matching().decided()
}

// For is the rules that a container is armed and watched for, in order: for
// each trigger (kind and threshold) the first rule that matches it. A rule that
// asks for the runtime stays a candidate together with the next ones after it,
// since the runtime is only decided when the trigger fires: then Pick chooses.
// A rule whose mode is off ends the list; alone in it, the container is exempt.
// A container without any limit on the way up matches no trigger that is about
// a limit.
func (p *Policy) For(c cri.Container, limit Limit) []*Rule {
	s := &subject{c: &c, limit: limit}
	_, limited := limit.Bytes()
	x := p.index
	if x == nil {
		x = newIndex(p.Rules)
	}
	var out []*Rule
	won := make([]bool, x.triggers)
	for e := range x.candidates(&c) {
		if won[e.trigger] && e.rule.Mode != Off || e.matcher.needLimit && !limited {
			continue
		}
		if e.matcher.first(s) != nil {
			continue
		}
		out = append(out, e.rule)
		if !e.matcher.decided() {
			continue
		}
		if e.rule.final() {
			break
		}
		won[e.trigger] = true
	}
	return out
}

// ByTrigger sorts what For returns by trigger: each list is the candidates for
// one kind and threshold, in order, for Pick. Rules whose mode is off are in
// every list, and have none of their own.
func ByTrigger(rules []*Rule) [][]*Rule {
	var out [][]*Rule
	for i, r := range rules {
		if r.Mode == Off || slices.ContainsFunc(rules[:i], func(b *Rule) bool { return b.Mode != Off && b.Trigger.Same(r.Trigger) }) {
			continue
		}
		var list []*Rule
		for _, o := range rules {
			if o.Mode == Off || o.Trigger.Same(r.Trigger) {
				list = append(list, o)
			}
		}
		out = append(out, list)
	}
	return out
}

// Pick chooses among the candidates of one trigger once the runtime is known
// ("" if it could not be told): the first whose runtime key agrees, or nil.
func Pick(candidates []*Rule, runtime string) *Rule {
	i := slices.IndexFunc(candidates, func(r *Rule) bool { return r.matching().firstRuntime(runtime) == nil })
	if i < 0 {
		return nil
	}
	return candidates[i]
}

// Match is the rule that a container gets for a kind of trigger once its
// runtime is known, and why the rules before it are not for it. With several
// thresholds of that kind it is the first one's; for a manual case the limit's,
// or else the first rule that wins at all.
func (p *Policy) Match(c cri.Container, limit Limit, runtime string, kind TriggerKind) (*Rule, []Miss) {
	candidates := p.For(c, limit)
	rule := pickKind(candidates, runtime, kind)
	if rule == nil && kind == OnManual {
		if rule = pickKind(candidates, runtime, OnLimit); rule == nil {
			rule = Pick(candidates, runtime)
		}
	}
	s := &subject{c: &c, limit: limit, runtime: runtime}
	var misses []Miss
	for _, r := range p.Rules {
		if r == rule {
			break
		}
		if miss := r.miss(s, kind); miss != nil {
			misses = append(misses, *miss)
		}
	}
	return rule, misses
}

// pickKind picks among the candidates for a kind of trigger. A rule whose mode
// is off is one for all kinds.
func pickKind(candidates []*Rule, runtime string, kind TriggerKind) *Rule {
	var of []*Rule
	for _, r := range candidates {
		if r.Mode == Off || r.Trigger.On == kind {
			of = append(of, r)
		}
	}
	return Pick(of, runtime)
}

// miss is why a rule does not apply, or nil.
func (r *Rule) miss(s *subject, kind TriggerKind) *Miss {
	m := r.matching()
	c := m.first(s)
	if c == nil {
		c = m.firstRuntime(s.runtime)
	}
	if c != nil {
		return &Miss{Rule: r, Key: c.key, Value: c.have(s), Want: c.want}
	}
	if _, limited := s.limit.Bytes(); m.needLimit && !limited {
		return &Miss{Rule: r, Key: "trigger.on", Value: "no limit", Want: `"` + string(r.Trigger.On) + `"`}
	}
	if r.Mode != Off && r.Trigger.On != kind && kind != OnManual {
		return &Miss{Rule: r, Key: "trigger.on", Value: string(kind), Want: `"` + string(r.Trigger.On) + `"`}
	}
	return nil
}
