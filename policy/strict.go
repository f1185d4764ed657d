package policy

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFileBytes bounds one file: 10 000 rules take about 4 MiB.
const maxFileBytes = 16 << 20

// A File is a policy or configuration file. Name is what messages call it.
type File struct {
	Name string
	Data []byte
}

// DecodeStrict decodes a TOML file into the struct that into points to, whose
// toml tags name the keys (see arbiter.toml's types). Fields that are zero take
// their default tag first. Sizes, durations and shares are written as in
// policies. A key that the struct does not know, a value of the wrong kind and a
// value without its unit are errors with file:line:column and a hint.
func DecodeStrict(file File, into any) Diagnostics {
	d := newDecoder(file)
	table, ok := d.parse()
	v := reflect.ValueOf(into).Elem()
	d.setDefaults(v)
	if ok {
		d.table(v, table, d.root, "")
	}
	d.diags.sortByPosition(nil)
	return d.diags
}

// A decoder decodes one file.
type decoder struct {
	file  File
	lines *lines
	root  *node
	diags Diagnostics
	rule  string // the rule being decoded, for its messages

	// hint explains a key that table at path does not know, beyond misspelling.
	hint  func(path, key string) string
	known map[reflect.Type][]field
}

func newDecoder(file File) *decoder {
	return &decoder{
		file: file, root: &node{}, lines: newLines(file.Name, string(file.Data)),
		hint:  func(string, string) string { return "" },
		known: make(map[reflect.Type][]field),
	}
}

func (d *decoder) fields(t reflect.Type) []field {
	fs, ok := d.known[t]
	if !ok {
		fs = fieldsOf(t)
		d.known[t] = fs
	}
	return fs
}

// report adds a diagnostic at an offset.
func (d *decoder) report(s Severity, off int, key, hint, format string, args ...any) {
	d.diags = append(d.diags, Diagnostic{
		Severity: s, Pos: d.lines.at(off), Rule: d.rule, Key: key,
		Message: fmt.Sprintf(format, args...), Hint: hint,
	})
}

func (d *decoder) errorf(off int, key, hint, format string, args ...any) {
	d.report(SeverityError, off, key, hint, format, args...)
}

// parse reads the TOML itself and its positions.
func (d *decoder) parse() (map[string]any, bool) {
	if len(d.file.Data) > maxFileBytes {
		d.errorf(0, "", "split it", "the file is larger than %s", FormatBytes(maxFileBytes))
		return nil, false
	}
	text := string(d.file.Data)
	var table map[string]any
	if _, err := toml.Decode(text, &table); err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			d.errorf(pe.Position.Start, "", "", "invalid TOML: %s", cmp.Or(pe.Message, plainTOML(err)))
		} else {
			d.errorf(0, "", "", "invalid TOML: %s", plainTOML(err))
		}
		return nil, false
	}
	root, twice := indexTOML(text)
	if twice != nil {
		d.errorf(twice.off, "", "", "invalid TOML: the key %q is given twice, first in line %d",
			twice.key, d.lines.at(twice.first).Line)
		return nil, false
	}
	d.root = root
	return table, true
}

// plainTOML is the library's message without its own idea of the position.
func plainTOML(err error) string {
	s := strings.TrimPrefix(err.Error(), "toml: ")
	if _, after, ok := strings.Cut(s, "): "); ok && strings.HasPrefix(s, "line ") {
		return after
	}
	return s
}

// setDefaults fills the zero fields of a table and of the tables in it.
func (d *decoder) setDefaults(v reflect.Value) {
	for _, f := range d.fields(v.Type()) {
		fv := v.Field(f.index)
		if fv.Kind() == reflect.Struct && fv.Type() != sizeType {
			d.setDefaults(fv)
			continue
		}
		if err := f.setDefault(fv); err != nil {
			d.errorf(0, f.key, "", "its default %q: %v", f.def, err)
		}
	}
}

// table decodes a table into a struct. path is its name in messages.
func (d *decoder) table(v reflect.Value, table map[string]any, n *node, path string) {
	fields := d.fields(v.Type())
	for _, key := range sortedKeys(table) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		if i < 0 {
			d.unknown(n.child(key), path, key, keysOf(fields))
			continue
		}
		d.value(fields[i], v.Field(fields[i].index), table[key], n.child(key), join(path, key))
	}
	for _, f := range fields {
		if _, ok := table[f.key]; f.required && !ok && f.typ.Kind() != reflect.Struct {
			d.errorf(n.key, join(path, f.key), "", "is missing: it must be %s", f.kind(f.typ))
		}
	}
}

func (d *decoder) unknown(n *node, path, key string, candidates []string) {
	hint := d.hint(path, key)
	if hint == "" {
		hint = didYouMean(key, candidates)
	}
	if path == "" {
		d.errorf(n.key, key, hint, "unknown key")
		return
	}
	d.errorf(n.key, join(path, key), hint, "unknown key")
}

// value decodes one value.
func (d *decoder) value(f field, v reflect.Value, val any, n *node, path string) {
	switch x := val.(type) {
	case string:
		if v.Kind() != reflect.Slice && v.Kind() != reflect.Map {
			if err := f.setText(v, x); err != nil {
				d.badValue(n, path, err)
			}
			return
		}
	case map[string]any:
		if d.tableValue(v, x, n, path) {
			return
		}
	case []any, []map[string]any:
		if d.list(f, v, x, n, path) {
			return
		}
	case bool:
		if v.Kind() == reflect.Bool {
			v.SetBool(x)
			return
		}
	case int64:
		if d.integer(f, v, x, n, path) {
			return
		}
	case float64:
		if v.CanFloat() && f.unit == "" {
			v.SetFloat(x)
			return
		}
		if d.lacksUnit(f, v.Type(), strconv.FormatFloat(x, 'f', -1, 64), n, path) {
			return
		}
	}
	d.errorf(n.val, path, listHint(v, val), "must be %s, not %s", f.kind(v.Type()), tomlKind(val))
}

// listHint helps who wrote a single value where a list belongs.
func listHint(v reflect.Value, val any) string {
	if s, ok := val.(string); ok && v.Kind() == reflect.Slice {
		return fmt.Sprintf("write [%q]", s)
	}
	return ""
}

func (d *decoder) badValue(n *node, path string, err error) {
	hint := ""
	var choice choiceError
	if errors.As(err, &choice) {
		hint = didYouMean(choice.got, choice.values)
	}
	d.errorf(n.val, path, hint, "%v", err)
}

// integer decodes a whole number; where a unit belongs it says so.
func (d *decoder) integer(f field, v reflect.Value, x int64, n *node, path string) bool {
	switch {
	case d.lacksUnit(f, v.Type(), strconv.FormatInt(x, 10), n, path):
	case v.CanInt() && !v.OverflowInt(x):
		v.SetInt(x)
	case v.CanUint() && x >= 0 && !v.OverflowUint(uint64(x)):
		v.SetUint(uint64(x))
	case v.CanFloat():
		v.SetFloat(float64(x))
	case v.CanInt() || v.CanUint():
		d.errorf(n.val, path, "", "%d is out of range", x)
	default:
		return false
	}
	return true
}

func (d *decoder) lacksUnit(f field, t reflect.Type, x string, n *node, path string) bool {
	if t != sizeType && t != durationType && f.unit != "percent" {
		return false
	}
	d.errorf(n.val, path, "", "%s lacks a unit: it must be %s", x, f.kind(t))
	return true
}

// tableValue decodes into a struct, a pointer to one, or a map.
func (d *decoder) tableValue(v reflect.Value, x map[string]any, n *node, path string) bool {
	switch {
	case v.Kind() == reflect.Struct && v.Type() != sizeType:
		d.table(v, x, n, path)
	case v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct:
		v.Set(reflect.New(v.Type().Elem()))
		d.table(v.Elem(), x, n, path)
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMapWithSize(v.Type(), len(x)))
		for _, key := range sortedKeys(x) {
			e := reflect.New(v.Type().Elem()).Elem()
			if e.Kind() == reflect.Struct {
				d.setDefaults(e)
			}
			d.value(field{key: key, typ: e.Type()}, e, x[key], n.child(key), join(path, key))
			v.SetMapIndex(reflect.ValueOf(key), e)
		}
	default:
		return false
	}
	return true
}

// list decodes into a slice.
func (d *decoder) list(f field, v reflect.Value, val any, n *node, path string) bool {
	if v.Kind() != reflect.Slice {
		return false
	}
	elems := elements(val)
	v.Set(reflect.MakeSlice(v.Type(), len(elems), len(elems)))
	ef := field{key: f.key, typ: v.Type().Elem(), values: f.values, unit: f.unit}
	for i, e := range elems {
		if v.Index(i).Kind() == reflect.Struct {
			d.setDefaults(v.Index(i))
		}
		d.value(ef, v.Index(i), e, n.elem(i), path)
	}
	return true
}

// elements are those of either kind of array that the library makes.
func elements(val any) []any {
	if tables, ok := val.([]map[string]any); ok {
		out := make([]any, len(tables))
		for i, t := range tables {
			out[i] = t
		}
		return out
	}
	list, _ := val.([]any)
	return list
}

func tomlKind(val any) string {
	switch val.(type) {
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a number"
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	}
	return "a date or time"
}

func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// join writes the path of a key.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
