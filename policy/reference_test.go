package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:generate go test . -run TestGenerated -update

// TestGenerated: what is made from the decoding types is checked in as it is.
func TestGenerated(t *testing.T) {
	t.Parallel()
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../etc/policy.schema.json", string(schema)+"\n")
	golden(t, "../etc/policy-reference.md", Markdown())
	golden(t, "../etc/man/arbiter-policy.5", Manual())
}

// TestReference: every key has a sentence, and a default that it can take.
func TestReference(t *testing.T) {
	t.Parallel()
	keys := 0
	for _, table := range Reference() {
		if table.Doc == "" || table.Header == "" {
			t.Errorf("table %s has no words", table.Name)
		}
		for _, k := range table.Keys {
			keys++
			if !strings.HasSuffix(k.Doc, ".") {
				t.Errorf("%s: its doc is no sentence: %q", k.Key, k.Doc)
			}
			if k.Required && k.Default != "" {
				t.Errorf("%s is required and has a default", k.Key)
			}
			if text, err := ExplainKey(k.Key); err != nil || !strings.Contains(text, k.Doc) {
				t.Errorf("ExplainKey(%s) = %q, %v", k.Key, text, err)
			}
		}
	}
	if keys < 70 {
		t.Errorf("only %d keys", keys)
	}
	for _, a := range actions {
		v := reflect.New(a.optionsType()).Elem()
		d := newDecoder(File{})
		if d.setDefaults(v); len(d.diags) > 0 {
			t.Errorf("%s: %s", a.name, d.diags)
		}
	}
}

func TestExplainKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"raise":            "verdict.raise\n", // the last part: all that end so
		"verdict.raise":    "verdict.raise\n  in       [rule.verdict]\n",
		"rule.verdict.do":  "verdict.do\n",
		"[rule.trigger]":   "keys: trigger.on, trigger.at",
		"heap-dump":        "The runtime's heap",
		"timeout":          "step.timeout\n",
		"mode":             `default  enforce`,
		"wait.usage-under": "default  none",
	} {
		if got, err := ExplainKey(key); err != nil || !strings.Contains(got, want) {
			t.Errorf("ExplainKey(%s) = %q, %v; want %q in it", key, got, err, want)
		}
	}
	for key, want := range map[string]string{
		"timeut": `policies have no key "timeut" (did you mean "timeout"?)`, "": "no key", "zzzzzzzzz": "no key",
	} {
		if got, err := ExplainKey(key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ExplainKey(%s) = %q, %v; want the error %q", key, got, err, want)
		}
	}
}

// TestReferenceKnowsWhatDecodes: a file with every key of a table is taken, and
// the reference has no key that the decoder does not know.
func TestReferenceKnowsWhatDecodes(t *testing.T) {
	t.Parallel()
	for _, table := range Reference() {
		for _, k := range table.Keys {
			key := lastPart(k.Key)
			text := "[[rule]]\nname = \"x\"\n" + table.Header + "\n" + key + " = 2026-11-21\n"
			if table.Action {
				text = "[[rule]]\nname = \"x\"\n[[rule.step]]\naction = \"" + table.Name + "\"\n" + key + " = 2026-11-21\n"
			}
			if table.Name == "rule" {
				text = "[[rule]]\n" + key + " = 2026-11-21\n"
			}
			_, diags := Decode([]File{{Name: "x", Data: []byte(text)}})
			if s := diags.String(); strings.Contains(s, "unknown key") || strings.Contains(s, "is no key") || !strings.Contains(s, "a date or time") && !strings.Contains(s, "must be an array") {
				t.Errorf("%s: the decoder says\n%s", k.Key, s)
			}
		}
	}
}

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := os.ReadFile("../etc/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is a TOML file as a schema's validator sees it.
func asJSON(t *testing.T, data []byte) any {
	t.Helper()
	var v map[string]any
	if _, err := toml.Decode(string(data), &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestSchemaAgainstDecoder: what the decoder takes the schema takes. Of what it
// refuses, the schema refuses whatever a single key shows.
func TestSchemaAgainstDecoder(t *testing.T) {
	t.Parallel()
	s := compiledSchema(t)
	good := slices.Concat(files(t, "testdata/plan/*.toml"), files(t, "testdata/lintenv/*.toml"),
		files(t, "../etc/policy.d/*.toml"), files(t, "../etc/examples/policy/*.toml"), []string{"testdata/lint/shadow.toml"})
	for _, name := range good {
		if err := s.Validate(asJSON(t, readFile(t, name).Data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, line := range singleMistakes {
		text := "[[rule]]\nname = \"x\"\nmatch.namespace = [\"x\"]\n" + line + "\n"
		p, diags := Decode([]File{{Name: "x", Data: []byte(text)}})
		if p != nil {
			t.Errorf("the decoder takes %s", line)
		}
		if s.Validate(asJSON(t, []byte(text))) == nil {
			t.Errorf("the schema takes %s, the decoder says %s", line, diags)
		}
	}
}

// singleMistakes are wrong whatever stands around them.
var singleMistakes = []string{
	`mod = "enforce"`, `mode = "on"`, `guard = true`, `allow-fuse = "yes"`, `resume-within = "20"`, `resume-within = 20`,
	`match.pods = ["x"]`, `match.pod = "x"`, `match.pod = [1]`, `match.labels = ["x"]`, `match.labels.a = 1`, `match.qos = ["best"]`,
	`match.runtime = ["java"]`, `match.limit-at-most = "50%"`, `match.not = {}`, `match.not.all = true`, `match.not.not.pod = ["x"]`,
	`trigger.on = "manual"`, `trigger.at = "90"`, `trigger.at = 90`, `trigger.hold = 1`, `trigger.cooldown = "-5s"`, `trigger.cooldown = ""`,
	`verdict.do = "pause"`, `verdict.raise = "64"`, `verdict.resumes = "3"`, `verdict.resumes = -1`, `verdict.otherwise = "hold"`,
	`step = [{ action = "core-dumps" }]`, `step = [{}]`, `step = [{ action = "core-dump", live = true }]`,
	`step = [{ action = "exec" }]`, `step = [{ action = "exec", argv = "x" }]`, `step = [{ action = "raise", by = "1GB" }]`,
	`step = [{ action = "core-dump", process = "biggest" }]`, `step = [{ action = "core-dump", timeout = "5" }]`,
	`step = [{ action = "heap-dump", via = "magic" }]`, `step = [{ action = "core-dump", mode = "enforce" }]`, `step = { action = "core-dump" }`,
	`step = [{ action = "log", message = "x", on-failure = "ignore" }]`, `step = [{ action = "core-dump", filter = -1 }]`,
}

// TestExamplesTogether: the examples are a good policy together, too.
func TestExamplesTogether(t *testing.T) {
	t.Parallel()
	var all []File
	for _, name := range append(files(t, "../etc/examples/policy/*.toml"), files(t, "../etc/policy.d/*.toml")...) {
		all = append(all, readFile(t, name))
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(filepath.Base(a.Name), filepath.Base(b.Name)) })
	if p, diags := Decode(all); p == nil || len(diags.Errors()) > 0 {
		t.Error(diags)
	}
	examples := slices.DeleteFunc(all, func(f File) bool { return strings.Contains(f.Name, "policy.d") })
	if _, diags := Decode(examples); len(diags) > 0 {
		t.Error(diags)
	}
}

// TestShippedPolicies: the default holds nothing and leaves the system alone.
func TestShippedPolicies(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Concat(files(t, "../etc/policy.d/*.toml"), files(t, "../etc/examples/policy/*.toml")) {
		p, diags := Decode([]File{readFile(t, name)})
		if len(diags) > 0 {
			t.Errorf("%s: %s", name, diags)
		}
		if filepath.Base(filepath.Dir(name)) != "policy.d" {
			continue
		}
		for _, r := range p.Rules {
			if r.Mode == Enforce {
				t.Errorf("%s: the shipped rule %s enforces", name, r.Name)
			}
		}
		for cg, want := range map[string]int{
			"/": 0, "/init.scope": 0, "/system.slice/ssh.service": 0, "/system.slice/system-getty.slice/getty@tty1.service": 0,
			"/system.slice/x.service/sub": 0, "/user.slice/user-0.slice": 0,
			"/kubepods/burstable/pod1/c": 1, "/system.slice/docker-abc.scope": 1, "/machine.slice/libpod-abc.scope": 1,
		} {
			c := checkout()
			c.Cgroup = cg
			if got := len(p.For(c, LimitOf(1<<30))); got != want {
				t.Errorf("%s: %d rules for %s, want %d", name, got, cg, want)
			}
		}
	}
}

var tomlBlock = regexp.MustCompile("(?s)```toml\n(.*?)```")

// TestDocumentedPolicies: every policy in the documentation is decoded without
// a word from lint, and planned.
func TestDocumentedPolicies(t *testing.T) {
	t.Parallel()
	found := 0
	for _, pattern := range []string{"../*.md", "../etc/*.md", "../docs/*.md", "../etc/*/*.md"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			for _, block := range tomlBlock.FindAllSubmatch(readFile(t, name).Data, -1) {
				if !bytes.Contains(block[1], []byte("[[rule")) {
					continue
				}
				found++
				p, diags := Decode([]File{{Name: name, Data: block[1]}})
				if len(diags) > 0 {
					t.Errorf("%s:\n%s\n%s", name, block[1], diags)
				}
				if p == nil {
					continue
				}
				for _, r := range p.Rules {
					checkPlan(t, r, Facts{}, MakePlan(r, Facts{Limit: LimitOf(1 << 28), Trigger: r.Trigger.On}))
				}
			}
		}
	}
	if found == 0 {
		t.Error("no policy found in the documentation")
	}
}
