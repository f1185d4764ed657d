package policy

import (
	"fmt"
	"reflect"
	"slices"
)

// ruleTables are the tables of a rule by the name that a policy gives them.
var ruleTables = []struct {
	name   string
	typ    reflect.Type
	header string
}{
	{"", reflect.TypeFor[Rule](), "[[rule]]"},
	{"match", reflect.TypeFor[Match](), "[rule.match]"},
	{"trigger", reflect.TypeFor[Trigger](), "[rule.trigger]"},
	{"verdict", reflect.TypeFor[Verdict](), "[rule.verdict]"},
	{"step", reflect.TypeFor[Step](), "[[rule.step]]"},
}

func hasKey(t reflect.Type, key string) bool {
	return slices.ContainsFunc(fieldsOf(t), func(f field) bool { return f.key == key })
}

// topHint explains a key at the top of a file.
func topHint(_, key string) string {
	for _, t := range ruleTables {
		if key != "" && key == t.name {
			return fmt.Sprintf("write %s below a [[rule]]", t.header)
		}
	}
	if hasKey(reflect.TypeFor[Rule](), key) {
		return "write it below a [[rule]]"
	}
	return ""
}

// ruleHint explains a key that a table of a rule does not know: most often it
// belongs to another table, since in TOML a key belongs to the last header
// above it.
func ruleHint(path, key string) string {
	for _, t := range ruleTables {
		if t.name == path || !hasKey(t.typ, key) {
			continue
		}
		if t.name == "" {
			return fmt.Sprintf("a key belongs to the last header above it: write %s directly below [[rule]]", key)
		}
		return fmt.Sprintf("it is a key of %s", t.header)
	}
	return ""
}

// unknownStepKey says what a key in a step is, if it is one of something else.
func (d *decoder) unknownStepKey(n *node, spec actionSpec, key string, candidates []string) {
	for _, t := range ruleTables[:4] {
		if hasKey(t.typ, key) {
			d.errorf(n.key, "step."+key, fmt.Sprintf(
				"a key below [[rule.step]] belongs to that step: write %s below %s, above the first [[rule.step]]", key, t.header),
				"is no key of a step")
			return
		}
	}
	var owners []string
	for _, a := range actions {
		if a.name != spec.name && hasKey(a.optionsType(), key) {
			owners = append(owners, a.name)
		}
	}
	if len(owners) > 0 {
		d.errorf(n.key, "step."+key, fmt.Sprintf("it is a key of %s", oneOf(owners)), "is no key of the action %q", spec.name)
		return
	}
	d.errorf(n.key, "step."+key, didYouMean(key, candidates), "unknown key")
}
