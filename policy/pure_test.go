package policy

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPure keeps files, the network, clocks, the kernel and logs out of this
// package, so that the daemon, lint, explain and replay cannot disagree.
func TestPure(t *testing.T) {
	t.Parallel()
	allowed := []string{
		"cmp", "crypto/sha256", "encoding", "encoding/hex", "encoding/json", "errors", "fmt", "iter", "maps", "math", "path",
		"reflect", "regexp", "slices", "sort", "strconv", "strings", "sync", "time", "unicode/utf8",
		"github.com/BurntSushi/toml", "github.com/arbiterd/arbiter/cri",
	}
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}
	fset := gotoken.NewFileSet()
	for _, name := range files(t, "*.go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			if !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", fset.Position(imp.Pos()), path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if ok && pkg.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
				t.Errorf("%s reads the clock: time.%s", fset.Position(sel.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}
