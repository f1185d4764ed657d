package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The kernel's bounds for the window of a PSI trigger, and ours where a rule
// gives none: Documentation/accounting/psi.rst.
const (
	minPressureWindow     = 500 * time.Millisecond
	maxPressureWindow     = 10 * time.Second
	defaultPressureWindow = 10 * time.Second
)

// maxGlobBytes bounds a glob: matching takes time in proportion to it.
const maxGlobBytes = 1024

// check says what is wrong with a rule whose keys are all well-formed.
func (d *decoder) check(r *Rule, n *node) {
	if r.Name == "" {
		d.errorf(n.child("name").val, "name", "", "is empty")
	}
	d.checkMatch(&r.Match, n, "match")
	d.checkTrigger(r, n.child("trigger"))
	names := make(map[string]int)
	for i := range r.Steps {
		d.checkStep(r, i, n.child("step").elem(i), names)
	}
	d.checkVerdict(r, n.child("verdict"))
	if r.Mode == Off && len(r.Steps) > 0 {
		d.report(SeverityWarning, n.child("step").elem(0).key, "step", "", "never runs: the rule's mode is off")
	}
	d.checkTimes(r, n)
}

func (d *decoder) checkMatch(m *Match, parent *node, path string) {
	n := parent.child(pathEnd(path))
	keys := len(n.keys)
	switch {
	case n == parent || keys == 0:
		d.errorf(n.key, path, "give a key, or all = true for every container", "is empty: it must say whom the rule is for")
		return
	case m.All && keys > 1 && (keys > 2 || m.Not == nil):
		d.errorf(n.child("all").key, path+".all", "drop all, or the other keys", "all = true stands alone, or with not")
	case n.has("all") && !m.All && keys == 1:
		d.errorf(n.child("all").key, path+".all", "", "all = false alone matches nothing")
	case m.Not != nil && keys == 1:
		d.errorf(n.key, path, "add all = true", "only says whom the rule is not for")
	}
	for _, g := range m.globs() {
		for i, s := range g.globs {
			d.checkGlob(s, n.child(g.key).elem(i), path+"."+g.key)
		}
		if n.has(g.key) && len(g.globs) == 0 {
			d.errorf(n.child(g.key).val, path+"."+g.key, "", "is an empty list, which no container matches")
		}
	}
	d.checkLabels(m, n, path)
	d.checkLimits(m, n, path)
	if m.Not == nil {
		return
	}
	if not := n.child("not"); not.has("not") || not.has("all") {
		d.errorf(not.key, path+".not", "", `knows neither "not" nor "all"`)
		return
	}
	d.checkMatch(m.Not, n, path+".not")
}

func pathEnd(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func (d *decoder) checkLabels(m *Match, n *node, path string) {
	for _, l := range []struct {
		key   string
		globs map[string]string
	}{{"labels", m.Labels}, {"annotations", m.Annotations}} {
		if n.has(l.key) && len(l.globs) == 0 {
			d.errorf(n.child(l.key).val, path+"."+l.key, "", "is an empty table, which says nothing")
		}
		for _, key := range sortedKeys(l.globs) {
			if len(l.globs[key]) > maxGlobBytes {
				d.checkGlob(l.globs[key], n.child(l.key).child(key), path+"."+l.key)
			}
		}
	}
}

func (d *decoder) checkGlob(glob string, n *node, path string) {
	switch {
	case glob == "":
		d.errorf(n.val, path, `write "*" for any`, "has an empty glob, which no container matches")
	case len(glob) > maxGlobBytes:
		d.errorf(n.val, path, "", "has a glob of %d bytes; the longest allowed is %d", len(glob), maxGlobBytes)
	case pathEnd(path) == "cgroup" && glob[0] != '/' && glob[0] != '*':
		d.errorf(n.val, path, fmt.Sprintf("write %q", "/"+glob), "%q matches no cgroup: every path begins with a slash", glob)
	}
}

func (d *decoder) checkLimits(m *Match, n *node, path string) {
	for _, key := range []string{"limit-at-least", "limit-at-most"} {
		if n.has(key) && (key == "limit-at-most" && m.LimitAtMost.IsZero() || key == "limit-at-least" && m.LimitAtLeast.IsZero()) {
			d.errorf(n.child(key).val, path+"."+key, "", "must be more than nothing")
		}
	}
	if !m.LimitAtMost.IsZero() && m.LimitAtLeast.Bytes > m.LimitAtMost.Bytes {
		d.errorf(n.child("limit-at-least").val, path+".limit-at-least", "", "%s is above limit-at-most = %s: no container matches",
			m.LimitAtLeast, m.LimitAtMost)
	}
}

// thresholds says which keys each kind of trigger has.
var thresholds = map[TriggerKind][]string{
	OnLimit: {}, OnUsage: {"at"}, OnPressure: {"some", "full", "over"}, OnGrowth: {"limit-within"},
}

func (d *decoder) checkTrigger(r *Rule, n *node) {
	t := &r.Trigger
	for _, key := range []string{"at", "some", "full", "over", "limit-within"} {
		if n.has(key) && !slices.Contains(thresholds[t.On], key) {
			d.errorf(n.child(key).key, "trigger."+key, thresholdHint(key), "means nothing for on = %q", t.On)
		}
	}
	switch t.On {
	case OnLimit:
		if !t.Hold {
			d.errorf(n.child("hold").val, "trigger.hold", `use on = "usage" to act earlier beside a running container`,
				"must be true for on = %q: at its limit a container stands still", t.On)
		}
	case OnUsage:
		d.checkShare(n, "at", t.At, n.has("at"))
	case OnPressure:
		d.checkPressure(t, n)
	case OnGrowth:
		if t.LimitWithin <= 0 {
			d.errorf(n.child("limit-within").val, "trigger.limit-within", `write limit-within = "30s"`, `is required for on = "growth" and more than 0s`)
		}
	}
}

func thresholdHint(key string) string {
	for _, kind := range []TriggerKind{OnUsage, OnPressure, OnGrowth} {
		if slices.Contains(thresholds[kind], key) {
			return fmt.Sprintf("it belongs to on = %q", kind)
		}
	}
	return ""
}

func (d *decoder) checkShare(n *node, key string, share float64, given bool) {
	switch {
	case !given:
		d.errorf(n.key, "trigger."+key, fmt.Sprintf(`write %s = "90%%"`, key), "is required")
	case share <= 0 || share > 100:
		d.errorf(n.child(key).val, "trigger."+key, "", "must be more than 0%% and at most 100%%")
	}
}

func (d *decoder) checkPressure(t *Trigger, n *node) {
	some, full := n.has("some"), n.has("full")
	if some == full {
		d.errorf(n.key, "trigger.full", `write full = "40%" or some = "60%"`, `on = "pressure" needs exactly one of full and some`)
		return
	}
	if some {
		d.checkShare(n, "some", t.Some, true)
	} else {
		d.checkShare(n, "full", t.Full, true)
	}
	if t.Over < minPressureWindow || t.Over > maxPressureWindow {
		d.errorf(n.child("over").val, "trigger.over", "", "must be from %s to %s: the kernel knows no other windows",
			FormatDuration(minPressureWindow), FormatDuration(maxPressureWindow))
	}
}

// duplicateNames finds rules that share a name, in all files together.
func duplicateNames(rules []*Rule) Diagnostics {
	var out Diagnostics
	first := make(map[string]*Rule, len(rules))
	for _, r := range rules {
		if f, ok := first[r.Name]; ok && r.Name != "" {
			out = append(out, Diagnostic{
				Severity: SeverityError, Pos: r.Pos, Rule: r.Name, Key: "name",
				Message: fmt.Sprintf("is also the name of the rule at %s", f.Pos),
			})
			continue
		}
		first[r.Name] = r
	}
	return out
}
