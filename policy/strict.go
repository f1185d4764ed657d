package policy

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
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
	if off, deep := tooDeep(text); deep {
		d.errorf(off, "", "", "nested more than %d deep", maxNesting)
		return nil, false
	}
	var table map[string]any
	if _, err := toml.Decode(text, &table); err != nil {
		if pe, ok := errors.AsType[toml.ParseError](err); ok {
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
