package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
)

// A schema is a JSON Schema (draft 7, which editors know), its keys in the
// order in which encoding/json sorts them.
type schema map[string]any

// The texts that ParseSize, ParsePercent and ParseDuration take.
const (
	sizePattern     = `^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB|%)$`
	bytesPattern    = `^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB)$`
	percentPattern  = `^[0-9]+(\.[0-9]+)?%$`
	durationPattern = `^([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?(h|m|s|ms|us|µs|ns))*$`
)

// Schema is the JSON Schema of a policy file, for editors, made from the types
// that decode it. What depends on several keys at once only lint knows.
func Schema() ([]byte, error) {
	rule, err := tableSchema(reflect.TypeFor[Rule](), nil)
	if err != nil {
		return nil, err
	}
	s := schema{
		"$schema":              "http://json-schema.org/draft-07/schema#",
		"title":                "Arbiter policy",
		"type":                 "object",
		"additionalProperties": false,
		"properties":           schema{"rule": schema{"type": "array", "items": rule}},
	}
	return json.MarshalIndent(s, "", "  ")
}

// tableSchema is the schema of a struct; more are keys besides its own.
func tableSchema(t reflect.Type, more schema) (schema, error) {
	props := schema{}
	required := []string{}
	for _, f := range fieldsOf(t) {
		s, err := f.schema()
		if err != nil {
			return nil, err
		}
		props[f.key] = s
		if f.required {
			required = append(required, f.key)
		}
	}
	maps.Copy(props, more)
	return schema{"type": "object", "additionalProperties": false, "properties": props, "required": required}, nil
}

// schema is the schema of one key.
func (f field) schema() (schema, error) {
	s, err := f.typeSchema(f.typ)
	if err != nil {
		return nil, err
	}
	s["description"] = f.doc
	if f.def == "" {
		return s, nil
	}
	v := reflect.New(f.typ).Elem()
	if err := f.setDefault(v); err != nil {
		return nil, fmt.Errorf("default of %s: %w", f.key, err)
	}
	switch {
	case v.Kind() == reflect.Slice:
		s["default"] = strings.Split(f.def, "|")
	case v.Kind() == reflect.Bool:
		s["default"] = v.Bool()
	case v.CanUint():
		s["default"] = v.Uint()
	case v.CanInt() && f.typ != durationType:
		s["default"] = v.Int()
	default:
		s["default"] = f.def
	}
	return s, nil
}

func (f field) typeSchema(t reflect.Type) (schema, error) {
	text := func(pattern string) schema { return schema{"type": "string", "pattern": pattern} }
	switch {
	case t == sizeType && f.unit == "bytes":
		return text(bytesPattern), nil
	case t == sizeType:
		return text(sizePattern), nil
	case t == durationType:
		s := text(durationPattern)
		s["minLength"] = 2
		return s, nil
	case f.unit == "percent":
		return text(percentPattern), nil
	case f.unit == "process":
		return text(`^(largest|all|pid1|name=.+)$`), nil
	case t == reflect.TypeFor[[]Step]():
		return stepsSchema()
	}
	switch t.Kind() {
	case reflect.String:
		s := schema{"type": "string"}
		if len(f.values) > 0 {
			s["enum"] = f.values
		}
		return s, nil
	case reflect.Bool:
		return schema{"type": "boolean"}, nil
	case reflect.Slice:
		item, err := f.typeSchema(t.Elem())
		return schema{"type": "array", "items": item}, err
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": schema{"type": "string"}}, nil
	case reflect.Struct:
		return tableSchema(t, nil)
	case reflect.Pointer: // match.not: a match without all and not
		return notSchema(t.Elem())
	case reflect.Int, reflect.Uint64:
		return schema{"type": "integer", "minimum": 0}, nil
	}
	return nil, fmt.Errorf("key %s: no schema for %s", f.key, t)
}

func notSchema(t reflect.Type) (schema, error) {
	props := schema{}
	for _, f := range fieldsOf(t) {
		if f.key == "all" || f.key == "not" {
			continue
		}
		s, err := f.schema()
		if err != nil {
			return nil, err
		}
		props[f.key] = s
	}
	return schema{"type": "object", "additionalProperties": false, "minProperties": 1, "properties": props}, nil
}

// stepsSchema is one schema for each action: the keys of every step and its own.
func stepsSchema() (schema, error) {
	var kinds []schema
	for _, a := range actions {
		own, err := tableSchema(a.optionsType(), nil)
		if err != nil {
			return nil, err
		}
		ownProps, _ := own["properties"].(schema)
		s, err := tableSchema(reflect.TypeFor[Step](), ownProps)
		if err != nil {
			return nil, err
		}
		props, _ := s["properties"].(schema)
		props["action"] = schema{"const": a.name, "description": a.doc}
		common, _ := s["required"].([]string)
		mine, _ := own["required"].([]string)
		s["required"] = append(common, mine...)
		s["title"] = "step " + strconv.Quote(a.name)
		kinds = append(kinds, s)
	}
	return schema{"type": "array", "items": schema{"oneOf": kinds}}, nil
}
