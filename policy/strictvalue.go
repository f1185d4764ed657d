package policy

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
)

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
	if choice, ok := errors.AsType[choiceError](err); ok {
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
