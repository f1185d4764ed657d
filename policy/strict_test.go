package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type strictConfig struct {
	API struct {
		Socket string `toml:"socket" default:"/run/x.sock"`
		Group  string `toml:"group"`
	} `toml:"api"`
	State struct {
		Retain  time.Duration `toml:"retain" default:"14d"`
		MaxSize Size          `toml:"max-size" unit:"bytes" default:"20GiB"`
		MinFree Size          `toml:"min-free" default:"10%"`
	} `toml:"state"`
	Budget struct {
		Held     int     `toml:"held" default:"16"`
		Pressure float64 `toml:"pressure" unit:"percent" default:"40%"`
		Ratio    float64 `toml:"ratio"`
	} `toml:"budget"`
	Dirs   []string                `toml:"dirs" default:"/a|/b"`
	Upload map[string]strictUpload `toml:"upload"`
	Rules  []strictUpload          `toml:"rules"`
	Level  logLevel                `toml:"level"`
	On     bool                    `toml:"on" default:"true"`
	Small  int8                    `toml:"small"`
}

type strictUpload struct {
	Bucket string `toml:"bucket" required:"true"`
	Tries  int    `toml:"tries" default:"3"`
}

type logLevel string

func (l *logLevel) UnmarshalText(text []byte) error {
	*l = logLevel(strings.ToUpper(string(text)))
	if *l == "LOUD" {
		return choiceError{"loud", []string{"low"}}
	}
	return nil
}

func TestDecodeStrict(t *testing.T) {
	t.Parallel()
	var empty strictConfig
	if diags := DecodeStrict(File{Name: "x.toml"}, &empty); len(diags) > 0 {
		t.Fatal(diags)
	}
	var want strictConfig
	want.API.Socket, want.State.Retain, want.State.MaxSize = "/run/x.sock", 14*24*time.Hour, Size{Bytes: 20 << 30}
	want.State.MinFree, want.Budget.Held, want.Budget.Pressure = Size{Percent: 10}, 16, 40
	want.Dirs, want.On = []string{"/a", "/b"}, true
	if diff := cmp.Diff(want, empty); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}

	text := `
dirs = ["/c"]
level = "low"
on = false
small = -3
[api]
group = "g"
[state]
retain = "1d"
[budget]
held = 2
ratio = 2
[upload.one]
bucket = "b"
[upload."two three"]
bucket = "c"
tries = 9
[[rules]]
bucket = "r"
`
	got := strictConfig{}
	if diags := DecodeStrict(File{Name: "x.toml", Data: []byte(text)}, &got); len(diags) > 0 {
		t.Fatal(diags)
	}
	want.Dirs, want.Level, want.On, want.Small, want.API.Group = []string{"/c"}, "LOW", false, -3, "g"
	want.State.Retain, want.Budget.Held, want.Budget.Ratio = 24*time.Hour, 2, 2
	want.Upload = map[string]strictUpload{"one": {"b", 3}, "two three": {"c", 9}}
	want.Rules = []strictUpload{{"r", 3}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDecodeStrictErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"[apis]":                               `x.toml:1:1: error: apis: unknown key (did you mean "api"?)`,
		"[api]\nsockt = \"x\"":                 `x.toml:2:1: error: api.sockt: unknown key (did you mean "socket"?)`,
		"[state]\nretain = 14":                 `x.toml:2:10: error: state.retain: 14 lacks a unit: it must be a duration like "30s"`,
		"[state]\nmax-size = \"10%\"":          `x.toml:2:12: error: state.max-size: "10%": a share has no meaning here: write bytes like "64MiB"`,
		"[upload.a]\nbuckt = \"x\"":            "x.toml:1:1: error: upload.a.bucket: is missing: it must be a string\nx.toml:2:1: error: upload.a.buckt: unknown key (did you mean \"bucket\"?)",
		"upload = 3":                           `x.toml:1:10: error: upload: must be a table, not an integer`,
		"[[rules]]\nbucket=\"x\"\n[[rules]]":   `x.toml:3:1: error: rules.bucket: is missing: it must be a string`,
		"rules = [1]":                          `x.toml:1:10: error: rules: must be a table, not an integer`,
		"level = \"loud\"":                     `x.toml:1:9: error: level: "loud" is not "low" (did you mean "low"?)`,
		"small = 300":                          `x.toml:1:9: error: small: 300 is out of range`,
		"[budget]\nheld = 1.5":                 `x.toml:2:8: error: budget.held: must be an integer, not a number`,
		"[budget]\nheld = \"many\"":            `x.toml:2:8: error: budget.held: must be an integer, not a string`,
		"on = 1":                               `x.toml:1:6: error: on: must be true or false, not an integer`,
		"dirs = \"/etc\"":                      `x.toml:1:8: error: dirs: must be a list of strings, not a string (write ["/etc"])`,
		"api = 1":                              `x.toml:1:7: error: api: must be a table, not an integer`,
		"[api\n":                               "x.toml:1:5: error: invalid TOML: expected '.' or ']' to end table name, but got '\\n' instead",
		"[api]\nsocket = \"a\"\nsocket=\"b\"":  "x.toml:3:1: error: invalid TOML: Key 'api.socket' has already been defined.",
		"api.socket = \"a\"\n[api]\ngroup='x'": `x.toml:2:2: error: invalid TOML: the key "api" is given twice, first in line 1`,
	}
	for text, want := range tests {
		got := DecodeStrict(File{Name: "x.toml", Data: []byte(text)}, &strictConfig{}).String()
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}

// TestDecodeDeep: nesting as deep as a file can have it ends in an error.
func TestDecodeDeep(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"[", "{a=", "a."} {
		text := "x = " + strings.Repeat(unit, 200_000)
		if unit == "a." {
			text = strings.Repeat(unit, 200_000) + "a = 1"
		}
		if p, diags := Decode([]File{{Name: "x", Data: []byte(text)}}); p != nil || !diags.HasErrors() {
			t.Errorf("%s is taken", unit)
		}
	}
}

func TestDiagnostics(t *testing.T) {
	t.Parallel()
	warning := Diagnostic{Severity: SeverityWarning, Message: "careful"}
	bad := Diagnostic{Severity: SeverityError, Pos: Position{File: "f", Line: 2, Column: 3}, Rule: "r", Key: "k", Message: "m", Hint: "h"}
	both := Diagnostics{warning, bad}
	if got, want := bad.String(), `f:2:3: error: rule "r": k: m (h)`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if err := both.Err(); err == nil || err.Error() != bad.String() {
		t.Errorf("Err() = %v", err)
	}
	if err := (Diagnostics{warning}).Err(); err != nil {
		t.Errorf("Err() of a warning = %v", err)
	}
	if len(both.Warnings()) != 1 || len(both.Errors()) != 1 {
		t.Errorf("%d warnings, %d errors", len(both.Warnings()), len(both.Errors()))
	}
}

// TestDecodeFiles: rules keep the files' order, names are checked across files,
// and the digest tells every change.
func TestDecodeFiles(t *testing.T) {
	t.Parallel()
	rule := func(name string) []byte {
		return []byte("[[rule]]\nname = \"" + name + "\"\nmatch.pod = [\"" + name + "\"]\n")
	}
	a, b := File{Name: "/etc/10-a.toml", Data: rule("a")}, File{Name: "/run/20-b.toml", Data: rule("b")}
	p, diags := Decode([]File{b, a})
	if p == nil || names(p.Rules) != "b a" {
		t.Fatalf("%v %s", p, diags)
	}
	digests := map[string]bool{}
	for _, files := range [][]File{{b, a}, {a, b}, {a}, {a, {Name: b.Name, Data: rule("c")}}, {a, {Name: "/run/30-b.toml", Data: b.Data}}, nil} {
		p, diags := Decode(files)
		if p == nil {
			t.Fatal(diags)
		}
		digests[p.Digest] = true
	}
	if len(digests) != 6 {
		t.Errorf("%d digests of 6 sets of files", len(digests))
	}
	moved := File{Name: "/usr/lib/10-a.toml", Data: a.Data}
	if q, _ := Decode([]File{moved, b}); q == nil || !digests[q.Digest] {
		t.Error("the digest depends on the directory")
	}
	_, diags = Decode([]File{a, {Name: "/run/99.toml", Data: rule("a")}})
	if want := `/run/99.toml:1:1: error: rule "a": name: is also the name of the rule at /etc/10-a.toml:1:1`; diags.String() != want {
		t.Errorf("%s\nwant %s", diags, want)
	}
}
