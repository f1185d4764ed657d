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

// Match is the rule that a container gets for a kind of trigger, and why every
// earlier rule of that kind, and every rule that is final, is not it. If there
// are rules of that kind with several thresholds, it is the first of them.
func (p *Policy) Match(c cri.Container, limit Limit, runtime string, kind TriggerKind) (*Rule, []Miss) {
	s := &subject{c: &c, limit: limit, runtime: runtime}
	var misses []Miss
	for _, r := range p.Rules {
		miss := r.miss(s, kind)
		switch {
		case miss != nil:
			misses = append(misses, *miss)
		case r.Mode == Off || r.Trigger.On == kind || kind == OnManual:
			return r, misses
		case r.final():
			return nil, misses
		}
	}
	return nil, misses
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
	if r.Mode != Off && r.Trigger.On != kind && kind != OnManual && !r.final() {
		return &Miss{Rule: r, Key: "trigger.on", Value: string(kind), Want: `"` + string(r.Trigger.On) + `"`}
	}
	return nil
}
