package policy

import (
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLintGolden decodes testdata/lint/*.toml, which are full of mistakes.
func TestLintGolden(t *testing.T) {
	t.Parallel()
	for _, name := range files(t, "testdata/lint/*.toml") {
		t.Run(stem(name), func(t *testing.T) {
			t.Parallel()
			f := readFile(t, name)
			f.Name = filepath.Base(name)
			p, diags := Decode([]File{f})
			if (p == nil) != diags.HasErrors() {
				t.Errorf("policy %v with %d errors", p, len(diags.Errors()))
			}
			for _, d := range diags {
				if d.Pos.File != f.Name || d.Pos.Line < 1 || d.Pos.Column < 1 {
					t.Errorf("no position: %+v", d)
				}
			}
			golden(t, strings.TrimSuffix(name, ".toml")+".golden", diags.String()+"\n")
		})
	}
}

// TestLintEnvGolden lints testdata/lintenv/*.toml for a small node.
func TestLintEnvGolden(t *testing.T) {
	t.Parallel()
	env := Env{NodeBytes: 16 << 30, BorrowBudgetBytes: 1 << 30, Uploads: []string{"dumps"}}
	for _, name := range files(t, "testdata/lintenv/*.toml") {
		f := readFile(t, name)
		f.Name = filepath.Base(name)
		p, diags := Decode([]File{f})
		if p == nil {
			t.Fatal(diags)
		}
		if got := Lint(p, Env{}); len(got) > 0 {
			t.Errorf("warnings about a node that is not known:\n%s", got)
		}
		golden(t, strings.TrimSuffix(name, ".toml")+".golden", Lint(p, env).String()+"\n")
	}
}

// TestEveryMessageHasGolden reads this package's source for the messages that
// lint can give, and looks for each in the golden files.
func TestEveryMessageHasGolden(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	for _, name := range append(files(t, "testdata/lint/*.golden"), files(t, "testdata/lintenv/*.golden")...) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		said.Write(data)
	}
	said.WriteString(messagesWithoutFile())
	found := 0
	for _, m := range messages(t) {
		found++
		if !asRegexp(m.format).MatchString(said.String()) {
			t.Errorf("%s: no golden file has the message %q", m.pos, m.format)
		}
	}
	if found < 60 {
		t.Errorf("found only %d messages in the source", found)
	}
}

// messagesWithoutFile are those that no file of a sane size gives.
func messagesWithoutFile() string {
	huge := DecodeStrict(File{Name: "huge.toml", Data: make([]byte, maxFileBytes+1)}, &struct{}{})
	var wrongTag struct {
		For time.Duration `toml:"for" default:"5"`
	}
	deep := DecodeStrict(File{Name: "deep.toml", Data: []byte("x = " + strings.Repeat("[", 100))}, &struct{}{})
	return huge.String() + "\n" + deep.String() + "\n" + DecodeStrict(File{Name: "x.toml"}, &wrongTag).String() + "\n"
}

type message struct {
	pos    string
	format string
}

// formatAt is which argument of each reporting function is the format.
var formatAt = map[string]int{"errorf": 3, "report": 4, "warn": 2, "bad": 2}

func messages(t *testing.T) []message {
	t.Helper()
	var out []message
	fset := gotoken.NewFileSet()
	for _, name := range files(t, "*.go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			at, ok := formatAt[calledName(call)]
			if calledName(call) == "warn" && name == "lint.go" {
				at = 3 // that one has a position before the key
			}
			if !ok || at >= len(call.Args) {
				return true
			}
			if lit, ok := call.Args[at].(*ast.BasicLit); ok && lit.Kind == gotoken.STRING {
				format, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, message{fset.Position(lit.Pos()).String(), format})
			}
			return true
		})
	}
	return out
}

func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

var verb = regexp.MustCompile(`%[0-9.]*[a-z]`)

// asRegexp is what a format's texts look like.
func asRegexp(format string) *regexp.Regexp {
	parts := verb.Split(format, -1)
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(strings.ReplaceAll(p, "%%", "%"))
	}
	return regexp.MustCompile(fmt.Sprintf(`: %s( \(|\n|$)`, strings.Join(parts, ".+")))
}
