package policy

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestGlob(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern string
		path    bool
		yes, no []string
	}{
		{"shop", false, []string{"shop"}, []string{"shop-eu", "sho", "Shop"}},
		{"*", false, []string{"x", "a/b"}, nil},
		{"shop-*", false, []string{"shop-", "shop-eu/x"}, []string{"shop", "x-shop-"}},
		{"*-shop", false, []string{"-shop", "eu-shop"}, []string{"shop-x"}},
		{"a*a", false, []string{"aa", "aba"}, []string{"a", "ab"}},
		{"*/checkout:*", false, []string{"registry/team/checkout:1", "x/checkout:"}, []string{"checkout:1"}},
		{"a*b*c", false, []string{"abc", "aXbYc", "abbcc", "a/b/c"}, []string{"acb", "ab"}},
		{"a?c", false, []string{"abc", "a/c"}, []string{"ac", "abbc"}},
		{"a?c*é", false, []string{"aéc-é"}, []string{"aécé\x80"}},
		{"??", false, []string{"ab"}, []string{"a", "abc"}},
		{`a\x2db*`, false, []string{`a\x2dbc`}, []string{"a-bc"}},
		{"[ab]", false, []string{"[ab]"}, []string{"a"}},

		{"/kubepods/**", true, []string{"/kubepods/a", "/kubepods/a/b"}, []string{"/kubepods", "/x/kubepods/a"}},
		{"/kubepods/*", true, []string{"/kubepods/a", "/kubepods/"}, []string{"/kubepods/a/b"}},
		{"/system.slice/*.service", true, []string{"/system.slice/a.service"}, []string{"/system.slice/a/b.service"}},
		{"/system.slice/**.service", true, []string{"/system.slice/a/b.service"}, []string{"/system.slice/a.scope"}},
		{"/a/**/b", true, []string{"/a/b", "/a/x/b", "/a/x/y/b"}, []string{"/a/xb", "/ab", "/a/b/c", "/a//x"}},
		{"/a/**/b/*", true, []string{"/a/b/c", "/a/x/b/c"}, []string{"/a/b", "/a/b/c/d"}},
		{"/**/pod?/*", true, []string{"/pod1/a", "/x/y/pod1/a"}, []string{"/pod/a", "/pod1/a/b"}},
		{"/a?b", true, []string{"/axb"}, []string{"/a/b"}},
		{"/*/*", true, []string{"/a/b"}, []string{"/a", "/a/b/c"}},
		{"**", true, []string{"/", "/a/b"}, nil},
		{"/", true, []string{"/"}, []string{"/a"}},
		{"/a/**/**/b", true, []string{"/a/b", "/a/x/b"}, []string{"/a", "/b"}},
	}
	for _, tt := range tests {
		g := compileGlob(tt.pattern, tt.path)
		for _, s := range tt.yes {
			if !g.match(s) {
				t.Errorf("%q (path %t) does not match %q", tt.pattern, tt.path, s)
			}
		}
		for _, s := range tt.no {
			if g.match(s) {
				t.Errorf("%q (path %t) matches %q", tt.pattern, tt.path, s)
			}
		}
	}
}

// TestGlobTime matches what makes a backtracking matcher hang.
func TestGlobTime(t *testing.T) {
	t.Parallel()
	pattern := strings.Repeat("*a", 400) + "*b"
	text := strings.Repeat("a", 4000)
	for _, path := range []bool{false, true} {
		g := compileGlob(pattern, path)
		g.inside = "" // the quick look would find that there is no b
		start := time.Now()
		if matchTokens(g.middle, text) && g.match(text) {
			t.Error("matches")
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
	}
}

// globRegexp is a second, independent implementation.
func globRegexp(pattern string, path bool) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	for rest := pattern; rest != ""; {
		switch {
		case path && strings.HasPrefix(rest, "/**/"):
			b.WriteString(`(/|/.*/)`)
			for rest = rest[4:]; strings.HasPrefix(rest, "**/"); {
				rest = rest[3:]
			}
		case rest[0] == '*':
			trimmed := strings.TrimLeft(rest, "*")
			if path && len(rest)-len(trimmed) == 1 {
				b.WriteString(`[^/]*`)
			} else {
				b.WriteString(`.*`)
			}
			rest = trimmed
		case rest[0] == '?' && path:
			b.WriteString(`[^/]`)
			rest = rest[1:]
		case rest[0] == '?':
			b.WriteString(`.`)
			rest = rest[1:]
		default:
			_, n := utf8.DecodeRuneInString(rest)
			b.WriteString(regexp.QuoteMeta(rest[:n]))
			rest = rest[n:]
		}
	}
	return regexp.MustCompile(b.String() + `$`)
}

func FuzzGlob(f *testing.F) {
	f.Add("/a/**/b*?", "/a/x/bcd")
	f.Add("a*b*c", "aabbcc")
	f.Add("/**/**/", "///")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 64 || len(text) > 256 || !utf8.ValidString(pattern) || !utf8.ValidString(text) {
			return
		}
		for _, path := range []bool{false, true} {
			g := compileGlob(pattern, path)
			if got, want := g.match(text), globRegexp(pattern, path).MatchString(text); got != want {
				t.Errorf("%q (path %t) on %q: %t, the regular expression says %t", pattern, path, text, got, want)
			}
			if e := example(pattern); !g.match(e) {
				t.Errorf("%q (path %t) does not match its example %q", pattern, path, e)
			}
			other := compileGlob(text, path)
			if coversGlob(pattern, text, path) && other.match(example(text)) && !g.match(example(text)) {
				t.Errorf("%q (path %t) covers %q but not %q", pattern, path, text, example(text))
			}
		}
	})
}
