package policy

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A KeyDoc is the reference of one key, made from the type that decodes it.
type KeyDoc struct {
	Key      string   `json:"key"`   // as diagnostics name it: "verdict.raise", "heap-dump.via"
	Table    string   `json:"table"` // the header that it stands below
	Type     string   `json:"type"`
	Required bool     `json:"required,omitempty"`
	Default  string   `json:"default,omitempty"`
	Values   []string `json:"values,omitempty"`
	Doc      string   `json:"doc"`
}

// A TableDoc is the reference of one table: the rule, its parts, or an action.
type TableDoc struct {
	Name   string `json:"name"`   // "trigger", or an action's name; "rule" for the rule itself
	Header string `json:"header"` // "[rule.trigger]"
	Action bool   `json:"action,omitempty"`
	Doc    string `json:"doc"`
	Keys   []KeyDoc
}

// Reference is every key of the language, in the order of a rule.
func Reference() []TableDoc {
	var out []TableDoc
	for _, t := range ruleTables {
		doc := TableDoc{Name: cmp.Or(t.name, "rule"), Header: t.header, Doc: tableDocs[t.name]}
		doc.Keys = keyDocs(t.typ, t.name, t.header)
		out = append(out, doc)
	}
	for _, a := range actions {
		doc := TableDoc{Name: a.name, Header: `[[rule.step]] with action = "` + a.name + `"`, Action: true, Doc: a.doc}
		doc.Keys = keyDocs(a.optionsType(), a.name, doc.Header)
		doc.Doc = strings.TrimSpace(doc.Doc + " " + actionNotes(a))
		out = append(out, doc)
	}
	return out
}

// tableDocs says what each table is for.
var tableDocs = map[string]string{
	"":        "A rule: whom it matches, what opens a case, the steps that run and the verdict. Rules are tried in the order of their files' names; for each trigger the first that matches a container is the one.",
	"match":   "Which containers the rule is for. All keys given must match; a list matches if one of its globs does. A glob matches the whole text: * is anything, ? one character.",
	"trigger": "What opens a case.",
	"verdict": "What becomes of the container once the steps are done.",
	"step":    "One use of an action. Steps run in order; freezes, thaws and raises are put around them as they need.",
}

// actionNotes tells in which state an action finds the container, and its timeout.
func actionNotes(a actionSpec) string {
	var notes []string
	switch a.options.Needs() {
	case Frozen:
		notes = append(notes, "The container stands still meanwhile.")
	case Running:
		notes = append(notes, "The container runs meanwhile: at its limit that takes a raise.")
	}
	if a.timeout > 0 {
		notes = append(notes, "Timeout: "+FormatDuration(a.timeout)+" unless given.")
	}
	return strings.Join(notes, " ")
}

func keyDocs(t reflect.Type, table, header string) []KeyDoc {
	var out []KeyDoc
	for _, f := range fieldsOf(t) {
		out = append(out, KeyDoc{
			Key: join(table, f.key), Table: header, Type: f.kind(f.typ), Required: f.required,
			Default: cmp.Or(f.also, strings.ReplaceAll(f.def, "|", ", ")), Values: f.values, Doc: f.doc,
		})
	}
	return out
}

// ExplainKey is the reference of a key for `lint --explain`: its whole name
// ("verdict.raise"), its last part ("raise": all that end so), a table or an
// action ("trigger", "heap-dump").
func ExplainKey(key string) (string, error) {
	key = strings.TrimPrefix(strings.Trim(key, "[] "), "rule.")
	var b strings.Builder
	var names []string
	for _, t := range Reference() {
		if t.Name == key {
			b.WriteString(t.text())
		}
		names = append(names, t.Name)
		for _, k := range t.Keys {
			_, last, _ := strings.Cut(k.Key, ".")
			if k.Key == key || last == key && last != "" {
				b.WriteString(k.text())
			}
			names = append(names, k.Key, cmp.Or(last, k.Key))
		}
	}
	if b.Len() == 0 {
		msg := fmt.Sprintf("policies have no key %q", key)
		if hint := didYouMean(key, names); hint != "" {
			msg += " (" + hint + ")"
		}
		return "", errors.New(msg)
	}
	return b.String(), nil
}

func (t TableDoc) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  %s\n", t.Header, t.Doc)
	if len(t.Keys) > 0 {
		keys := make([]string, len(t.Keys))
		for i, k := range t.Keys {
			keys[i] = k.Key
		}
		fmt.Fprintf(&b, "  keys: %s\n", strings.Join(keys, ", "))
	}
	return b.String()
}

func (k KeyDoc) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  in       %s\n  type     %s\n", k.Key, k.Table, k.Type)
	fmt.Fprintf(&b, "  default  %s\n  %s\n", k.fallback(), k.Doc)
	return b.String()
}

// fallback is what a key is when left out, in words.
func (k KeyDoc) fallback() string {
	if k.Required {
		return "required"
	}
	return cmp.Or(k.Default, "none")
}

// Markdown is the reference as a document.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# The policy language\n\n")
	b.WriteString("Generated from the types that decode it; `arbiterctl lint --explain KEY` prints one key.\n\n")
	b.WriteString(unitsDoc + "\n```toml\n" + exampleRule + "```\n")
	for _, t := range Reference() {
		level := "##"
		title := t.Header
		if t.Action {
			level, title = "###", t.Name
		}
		if t.Name == actions[0].name {
			b.WriteString("\n## Actions\n")
		}
		fmt.Fprintf(&b, "\n%s %s\n\n%s\n", level, title, t.Doc)
		if len(t.Keys) == 0 {
			continue
		}
		b.WriteString("\n| key | type | default | |\n|---|---|---|---|\n")
		for _, k := range t.Keys {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", lastPart(k.Key), cell(k.Type), cell(k.fallback()), cell(k.Doc))
		}
	}
	return b.String()
}

const unitsDoc = "Sizes need a unit: `B`, `KiB`, `MiB`, `GiB`, `TiB`, or `%` of the container's limit. " +
	"So do durations: `ms`, `s`, `m`, `h`, `d`. A key that is not known is an error.\n"

// exampleRule is a rule for the documentation.
const exampleRule = `[[rule]]
name = "jvm-heap"
probe-deadline = "5m"

[rule.match]                      # all keys given must match
namespace = ["shop-*"]
labels    = { team = "pay*" }
runtime   = ["jvm"]
not       = { container = ["istio-*"] }

[rule.trigger]
on       = "limit"                # the hard limit is reached, nothing can be reclaimed
cooldown = "10m"

[[rule.step]]
action  = "heap-dump"
timeout = "2m"
raise   = "25%"                   # borrowed for this step only

[[rule.step]]
action    = "core-dump"
timeout   = "1m"
if-failed = ["heap-dump"]

[rule.verdict]
do        = "resume"
raise     = "25%"
resumes   = 1
otherwise = "kill"
`

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// Manual is the reference as the manual page arbiter-policy(5).
func Manual() string {
	var b strings.Builder
	b.WriteString(".TH ARBITER\\-POLICY 5 \"\" arbiter \"File formats\"\n.SH NAME\narbiter\\-policy \\- rules of the userspace OOM arbiter\n")
	b.WriteString(".SH SYNOPSIS\n.nf\n/usr/lib/arbiter/policy.d/*.toml\n/etc/arbiter/policy.d/*.toml\n/run/arbiter/policy.d/*.toml\n.fi\n")
	b.WriteString(".SH DESCRIPTION\n" + roff("A later directory masks a file of the same name; all are then sorted by file name. "+strings.ReplaceAll(unitsDoc, "`", "")))
	for _, t := range Reference() {
		if t.Name == actions[0].name {
			b.WriteString(".SH ACTIONS\n")
		}
		if t.Action {
			fmt.Fprintf(&b, ".SS %s\n%s", roffText(t.Name), roff(t.Doc))
		} else {
			fmt.Fprintf(&b, ".SH %s\n%s", strings.ToUpper(roffText(t.Header)), roff(t.Doc))
		}
		for _, k := range t.Keys {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s", roffText(lastPart(k.Key)), roff(k.Doc))
			fmt.Fprintf(&b, ".br\nIt is %s; default: %s.\n", roffText(k.Type), roffText(k.fallback()))
		}
	}
	b.WriteString(".SH SEE ALSO\n.BR arbiterctl (1)\n")
	return b.String()
}

func roffText(s string) string {
	return strings.NewReplacer(`\`, `\\`, "-", `\-`).Replace(s)
}

// roff is a paragraph: no line may begin with a control character.
func roff(s string) string {
	s = roffText(strings.TrimSpace(s))
	if s != "" && slices.Contains([]byte(".'"), s[0]) {
		s = `\&` + s
	}
	return s + "\n"
}
