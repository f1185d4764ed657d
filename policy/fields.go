package policy

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A field is a key of a table as its struct tags describe it. Decoder,
// reference and JSON Schema all read the same tags:
//
//	toml:"timeout"        the key
//	default:"30s"         what it is when left out
//	values:"a|b"          the only values allowed
//	unit:"percent"        a float64 written as a share; unit:"bytes": a Size without %
//	required:"true"       must be given
//	also:"..."            a default that depends, in words
//	doc:"..."             one or two sentences for the reference
type field struct {
	index    int
	key      string
	typ      reflect.Type
	def      string
	also     string
	values   []string
	unit     string
	required bool
	doc      string
}

// fieldsOf lists the keys of a table in the order of its struct.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		key := sf.Tag.Get("toml")
		if key == "" || key == "-" {
			continue
		}
		f := field{
			index: i, key: key, typ: sf.Type,
			def: sf.Tag.Get("default"), also: sf.Tag.Get("also"),
			unit: sf.Tag.Get("unit"), required: sf.Tag.Get("required") == "true",
			doc: sf.Tag.Get("doc"),
		}
		if v := sf.Tag.Get("values"); v != "" {
			f.values = strings.Split(v, "|")
		}
		out = append(out, f)
	}
	return out
}

var (
	sizeType     = reflect.TypeFor[Size]()
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// setText sets a value that policies write as a string: a size, a duration, a
// share, a choice or plain text.
func (f field) setText(v reflect.Value, s string) error {
	switch {
	case reflect.PointerTo(v.Type()).Implements(textType):
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	case v.Type() == sizeType:
		return f.setSize(v, s)
	case v.Type() == durationType:
		d, err := ParseDuration(s)
		v.SetInt(int64(d))
		return err
	case f.unit == "percent":
		p, err := ParsePercent(s)
		v.SetFloat(p)
		return err
	case v.Kind() == reflect.String:
		v.SetString(s)
		return f.checkChoice(s)
	}
	return fmt.Errorf("must be %s, not a string", f.kind(v.Type()))
}

func (f field) setSize(v reflect.Value, s string) error {
	size, err := ParseSize(s)
	if err == nil && f.unit == "bytes" && strings.HasSuffix(s, "%") {
		return fmt.Errorf(`%q: a share has no meaning here: write bytes like "64MiB"`, s)
	}
	v.Set(reflect.ValueOf(size))
	return err
}

func (f field) checkChoice(s string) error {
	if len(f.values) == 0 {
		return nil
	}
	if slices.Contains(f.values, s) {
		return nil
	}
	return choiceError{s, f.values}
}

// A choiceError says that a value is none of those allowed.
type choiceError struct {
	got    string
	values []string
}

func (e choiceError) Error() string {
	return fmt.Sprintf("%q is not %s", e.got, oneOf(e.values))
}

// setDefault sets v to the field's default.
func (f field) setDefault(v reflect.Value) error {
	switch {
	case f.def == "" || !v.IsZero():
		return nil
	case v.Kind() == reflect.Bool:
		v.SetBool(f.def == "true")
		return nil
	case v.Type() != durationType && v.CanInt():
		n, err := strconv.ParseInt(f.def, 10, 64)
		v.SetInt(n)
		return err
	case v.CanUint():
		n, err := strconv.ParseUint(f.def, 0, 64)
		v.SetUint(n)
		return err
	case v.Kind() == reflect.Slice:
		for s := range strings.SplitSeq(f.def, "|") {
			v.Set(reflect.Append(v, reflect.ValueOf(s)))
		}
		return nil
	}
	return f.setText(v, f.def)
}

// kind names a type as messages and the reference do.
func (f field) kind(t reflect.Type) string {
	switch {
	case t == sizeType && f.unit == "bytes":
		return `a size like "64MiB"`
	case t == sizeType:
		return `a size like "64MiB" or "25%"`
	case t == durationType:
		return `a duration like "30s"`
	case f.unit == "percent":
		return `a share like "40%"`
	case f.unit == "process":
		return `"largest", "all", "pid1" or "name=GLOB"`
	case len(f.values) > 0 && t.Kind() == reflect.String:
		return oneOf(f.values)
	case len(f.values) > 0 && t.Kind() == reflect.Slice:
		return "a list of " + oneOf(f.values)
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "an array of tables"
		}
		return "a list of strings"
	case reflect.Map, reflect.Struct, reflect.Pointer:
		return "a table"
	case reflect.Float64, reflect.Float32:
		return "a number"
	}
	return "an integer"
}
