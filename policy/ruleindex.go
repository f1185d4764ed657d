package policy

import (
	"iter"

	"github.com/arbiterd/arbiter/cri"
)

// ruleIndex is the rules prepared for matching many containers. Rules that name
// namespaces without globs are only looked at for containers in them.
type ruleIndex struct {
	entries     []entry
	triggers    int              // number of distinct triggers
	byNamespace map[string][]int // entries whose namespaces are all literal, by each of them
	others      []int            // all other entries
}

type entry struct {
	rule    *Rule
	matcher *matcher
	trigger int // the same number for the same kind and threshold
}

func newIndex(rules []*Rule) *ruleIndex {
	x := &ruleIndex{entries: make([]entry, len(rules)), byNamespace: make(map[string][]int)}
	seen := make(map[Trigger]int)
	for i, r := range rules {
		key := r.Trigger.identity()
		t, ok := seen[key]
		if !ok {
			t = len(seen)
			seen[key] = t
		}
		m := r.matching()
		x.entries[i] = entry{rule: r, matcher: m, trigger: t}
		x.file(i, m)
	}
	x.triggers = len(seen)
	return x
}

// file puts entry i where candidates looks for it.
func (x *ruleIndex) file(i int, m *matcher) {
	if len(m.want) == 0 || m.want[0].key != "match.namespace" {
		x.others = append(x.others, i)
		return
	}
	globs := m.want[0].globs
	for _, g := range globs {
		if g.shape != globLiteral {
			x.others = append(x.others, i)
			return
		}
	}
	for _, g := range globs {
		list := x.byNamespace[g.prefix]
		if len(list) == 0 || list[len(list)-1] != i {
			x.byNamespace[g.prefix] = append(list, i)
		}
	}
}

// candidates yields, in order, the entries that may match a container.
func (x *ruleIndex) candidates(c *cri.Container) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		named, others := x.byNamespace[c.Pod.Namespace], x.others
		for len(named) > 0 || len(others) > 0 {
			var i int
			if len(others) == 0 || len(named) > 0 && named[0] < others[0] {
				i, named = named[0], named[1:]
			} else {
				i, others = others[0], others[1:]
			}
			if !yield(&x.entries[i]) {
				return
			}
		}
	}
}

// identity is the trigger without what does not tell triggers apart.
func (t Trigger) identity() Trigger {
	t.Hold, t.Cooldown = false, 0
	return t
}
