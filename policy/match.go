package policy

import (
	"fmt"
	"math"
	"strings"

	"github.com/arbiterd/arbiter/cri"
)

// A Miss is why a rule is not for a container: the first key that failed, and
// the container's value of it.
type Miss struct {
	Rule  *Rule
	Key   string // "match.namespace"; "trigger.on" where the trigger cannot fire
	Value string // "" where the container has none
	Want  string // what the rule asks for, as written
}

// String is the miss in words.
func (m Miss) String() string {
	value := "none"
	if m.Value != "" {
		value = fmt.Sprintf("%q", m.Value)
	}
	return fmt.Sprintf("%s = %s, the container has %s", m.Key, m.Want, value)
}

// globKey is one key of a match that is a list of globs, or of values.
type globKey struct {
	key   string
	globs []string
}

// globs are the keys that are lists, in the order in which they are tried.
func (m *Match) globs() []globKey {
	return []globKey{
		{"namespace", m.Namespace}, {"pod", m.Pod}, {"container", m.Container}, {"image", m.Image},
		{"qos", m.QoS}, {"cgroup", m.Cgroup}, {"runtime", m.Runtime},
	}
}

// A condition is one compiled key of a match.
type condition struct {
	key   string
	value func(s *subject) string
	globs globList
	want  string
	limit Size // limit-at-least and limit-at-most
}

// A subject is a container as conditions see it.
type subject struct {
	c       *cri.Container
	limit   Limit
	runtime string
}

// A matcher is a compiled match: all of want and none of not.
type matcher struct {
	want, not []condition
	runtime   []condition // want on the runtime, known only at the trigger
	notRun    []condition // not on the runtime
	needLimit bool        // the trigger is about a limit
}

func compileRule(r *Rule) *matcher {
	m := &matcher{needLimit: r.Mode != Off && r.Trigger.On != OnPressure && r.Trigger.On != OnManual}
	m.want, m.runtime = conditions(&r.Match, "match.")
	if r.Match.Not != nil {
		m.not, m.notRun = conditions(r.Match.Not, "match.not.")
	}
	return m
}

// conditions compiles the keys of a match; those on the runtime apart.
func conditions(m *Match, prefix string) (now, later []condition) {
	for _, g := range m.globs() {
		if len(g.globs) == 0 {
			continue
		}
		c := condition{
			key: prefix + g.key, globs: compileGlobs(g.globs, g.key == "cgroup"),
			value: values[g.key], want: listOf(g.globs),
		}
		if g.key == "runtime" {
			later = append(later, c)
			continue
		}
		now = append(now, c)
	}
	for _, key := range sortedKeys(m.Labels) {
		now = append(now, mapCondition(prefix+"labels."+key, m.Labels[key], func(s *subject) string { return s.c.Pod.Labels[key] }))
	}
	for _, key := range sortedKeys(m.Annotations) {
		now = append(now, mapCondition(prefix+"annotations."+key, m.Annotations[key], func(s *subject) string { return s.c.Pod.Annotations[key] }))
	}
	if !m.LimitAtLeast.IsZero() {
		now = append(now, condition{key: prefix + "limit-at-least", limit: m.LimitAtLeast, want: m.LimitAtLeast.String()})
	}
	if !m.LimitAtMost.IsZero() {
		now = append(now, condition{key: prefix + "limit-at-most", limit: m.LimitAtMost, want: m.LimitAtMost.String()})
	}
	return now, later
}

func mapCondition(key, pattern string, value func(*subject) string) condition {
	return condition{key: key, globs: compileGlobs([]string{pattern}, false), value: value, want: fmt.Sprintf("%q", pattern)}
}

func listOf(globs []string) string {
	quoted := make([]string, len(globs))
	for i, g := range globs {
		quoted[i] = fmt.Sprintf("%q", g)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// values says where a container has what a key asks for.
var values = map[string]func(*subject) string{
	"namespace": func(s *subject) string { return s.c.Pod.Namespace },
	"pod":       func(s *subject) string { return s.c.Pod.Name },
	"container": func(s *subject) string { return s.c.Name },
	"image":     func(s *subject) string { return s.c.Image },
	"qos":       func(s *subject) string { return strings.ToLower(s.c.Pod.QoS) },
	"cgroup":    func(s *subject) string { return s.c.Cgroup },
	"runtime":   func(s *subject) string { return s.runtime },
}

// met reports whether the container meets the condition.
func (c *condition) met(s *subject) bool {
	if c.globs != nil {
		return c.globs.match(c.value(s))
	}
	bytes, limited := s.limit.Bytes()
	if !limited {
		bytes = math.MaxUint64
	}
	if strings.HasSuffix(c.key, "limit-at-least") {
		return bytes >= c.limit.Bytes
	}
	return bytes <= c.limit.Bytes
}

// have is the container's value, for people.
func (c *condition) have(s *subject) string {
	if c.globs != nil {
		return c.value(s)
	}
	if n, ok := s.limit.Bytes(); ok {
		return FormatBytes(n)
	}
	return "no limit"
}

// first is the first condition that fails the rule, or nil. The runtime is not
// looked at.
func (m *matcher) first(s *subject) *condition {
	for i := range m.want {
		if !m.want[i].met(s) {
			return &m.want[i]
		}
	}
	for i := range m.not {
		if m.not[i].met(s) {
			return &m.not[i]
		}
	}
	return nil
}

// firstRuntime is the first condition on the runtime that fails, or nil.
func (m *matcher) firstRuntime(runtime string) *condition {
	s := &subject{runtime: runtime}
	for i := range m.runtime {
		if !m.runtime[i].met(s) {
			return &m.runtime[i]
		}
	}
	for i := range m.notRun {
		if m.notRun[i].met(s) {
			return &m.notRun[i]
		}
	}
	return nil
}

// decided reports whether the match does not depend on the runtime.
func (m *matcher) decided() bool { return len(m.runtime) == 0 && len(m.notRun) == 0 }
