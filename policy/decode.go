package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"reflect"
	"slices"
	"sync"
)

// Decode decodes policy files in the order in which their rules are tried,
// fills in every default, and checks all that can be checked without knowing
// the node. The policy is nil if and only if there is an error among the
// diagnostics; warnings alone do not keep it from being loaded.
func Decode(files []File) (*Policy, Diagnostics) {
	decoded := make([]fileRules, len(files))
	var wg sync.WaitGroup
	for i, f := range files {
		wg.Go(func() { decoded[i] = decodeFile(f) })
	}
	wg.Wait()

	p := &Policy{Digest: digest(files)}
	var diags Diagnostics
	order := make(map[string]int, len(files))
	for i, d := range decoded {
		order[files[i].Name] = i
		p.Rules = append(p.Rules, d.rules...)
		diags = append(diags, d.diags...)
	}
	diags = append(diags, duplicateNames(p.Rules)...)
	if diags.HasErrors() {
		diags.sortByPosition(order)
		return nil, diags
	}
	for _, r := range p.Rules {
		r.compiled = compileRule(r)
	}
	p.index = newIndex(p.Rules)
	diags = append(diags, p.index.unreachable()...)
	diags.sortByPosition(order)
	return p, diags
}

// digest tells two sets of files apart: by their names without directories,
// their order and their contents.
func digest(files []File) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s\x00%d\x00", path.Base(f.Name), len(f.Data))
		h.Write(f.Data)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

type fileRules struct {
	rules []*Rule
	diags Diagnostics
}

func decodeFile(f File) fileRules {
	d := newDecoder(f)
	table, ok := d.parse()
	if !ok {
		return fileRules{diags: d.diags}
	}
	d.hint = topHint
	var rules []*Rule
	for _, key := range sortedKeys(table) {
		n := d.root.child(key)
		if key != "rule" {
			d.unknown(n, "", key, []string{"rule"})
			continue
		}
		if _, ok := table[key].([]map[string]any); !ok {
			d.errorf(n.key, "rule", "write [[rule]]", "must be an array of tables, not %s", tomlKind(table[key]))
			continue
		}
		for i, e := range elements(table[key]) {
			if r := d.oneRule(e, n.elem(i)); r != nil {
				rules = append(rules, r)
			}
		}
	}
	return fileRules{rules, d.diags}
}

// oneRule decodes and checks one [[rule]].
func (d *decoder) oneRule(val any, n *node) *Rule {
	table, ok := val.(map[string]any)
	if !ok {
		d.errorf(n.val, "rule", "write [[rule]]", "must be a table, not %s", tomlKind(val))
		return nil
	}
	d.rule, _ = table["name"].(string)
	d.hint = ruleHint
	defer func() { d.rule, d.hint = "", topHint }()
	before := len(d.diags)
	r := &Rule{Pos: d.lines.at(n.key)}
	v := reflect.ValueOf(r).Elem()
	d.setDefaults(v)
	steps := table["step"]
	delete(table, "step")
	d.table(v, table, n, "")
	r.Steps = d.steps(steps, n.child("step"))
	r.dependentDefaults(n)
	if len(d.diags) == before { // one mistake at a time: the checks build on what was read
		d.check(r, n)
	}
	return r
}

// dependentDefaults fills what depends on other keys.
func (r *Rule) dependentDefaults(n *node) {
	if !n.keys["trigger"].has("hold") {
		r.Trigger.Hold = r.Trigger.On == OnLimit
	}
	if r.Trigger.On == OnPressure && r.Trigger.Over == 0 {
		r.Trigger.Over = defaultPressureWindow
	}
	v := &r.Verdict
	if v.Do == "" {
		v.Do = None
		if r.Trigger.Hold {
			v.Do = Kill
		}
	}
	if v.Otherwise == "" {
		v.Otherwise = Kill
		if v.Do == None {
			v.Otherwise = None
		}
	}
}

// steps decodes the [[rule.step]] tables.
func (d *decoder) steps(val any, n *node) []Step {
	switch val.(type) {
	case nil:
		return nil
	case map[string]any:
		d.errorf(n.key, "step", "write [[rule.step]]", "must be an array of tables")
		return nil
	case []any, []map[string]any:
	default:
		d.errorf(n.val, "step", "write [[rule.step]]", "must be an array of tables, not %s", tomlKind(val))
		return nil
	}
	var steps []Step
	for i, e := range elements(val) {
		table, ok := e.(map[string]any)
		if !ok {
			d.errorf(n.elem(i).val, "step", "write [[rule.step]]", "must be a table, not %s", tomlKind(e))
			continue
		}
		steps = append(steps, d.step(table, n.elem(i)))
	}
	return steps
}

// step decodes one step: the keys that every step has, and its action's own.
func (d *decoder) step(table map[string]any, n *node) Step {
	s := Step{Pos: d.lines.at(n.key)}
	name, _ := table["action"].(string)
	spec, known := findAction(name)
	var own []field
	if known {
		own = d.fields(spec.optionsType())
	}
	common := d.fields(reflect.TypeFor[Step]())
	mine, theirs := make(map[string]any), make(map[string]any)
	for key, val := range table {
		switch {
		case slices.ContainsFunc(own, func(f field) bool { return f.key == key }):
			theirs[key] = val
		case slices.ContainsFunc(common, func(f field) bool { return f.key == key }):
			mine[key] = val
		}
	}
	d.setDefaults(reflect.ValueOf(&s).Elem())
	d.table(reflect.ValueOf(&s).Elem(), mine, n, "step")
	if !known {
		if name != "" {
			d.errorf(n.child("action").val, "step.action", didYouMean(name, Actions()), "%q is no action", name)
		}
		return s
	}
	for _, key := range sortedKeys(table) {
		if _, a := mine[key]; a {
			continue
		}
		if _, b := theirs[key]; !b {
			d.unknownStepKey(n.child(key), spec, key, append(keysOf(common), keysOf(own)...))
		}
	}
	s.Options = d.options(spec, theirs, n)
	if s.Name == "" {
		s.Name = s.Action
	}
	if !n.has("timeout") {
		s.Timeout = spec.defaultTimeout(s.Options)
	}
	return s
}

// options decodes an action's own keys alone.
func (d *decoder) options(spec actionSpec, table map[string]any, n *node) Options {
	v := reflect.New(spec.optionsType()).Elem()
	d.setDefaults(v)
	d.table(v, table, n, spec.name)
	return v.Interface().(Options)
}
