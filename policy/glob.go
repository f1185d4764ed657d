package policy

import (
	"strings"
	"unicode/utf8"
)

// A glob is a compiled pattern. Everything stands for itself but
//
//	a*b   any characters between; in a cgroup path none of them a slash
//	a?b   one character between; in a cgroup path no slash
//	a**b  any characters between, slashes too; /a/**/b is also /a/b
//
// A backslash is no escape: systemd's unit names are full of them. Matching
// takes time in proportion to the pattern times the text, and for the common
// shapes (a prefix, a suffix, or both) to the text alone.
type glob struct {
	prefix, suffix string // literal ends
	shape          globShape
	middle         []token // what stands between the ends, if shape is globTokens
	inside         string  // globTokens: the longest literal in the middle, looked for first
}

type globShape uint8

const (
	globLiteral globShape = iota // prefix is all
	globAny                      // prefix, anything, suffix
	globInLevel                  // prefix, anything but slashes, suffix
	globTokens
)

type tokenKind uint8

const (
	tokenByte    tokenKind = iota
	tokenOne               // ? (of a path: no slash)
	tokenOneAny            // ? across slashes
	tokenStar              // * within a level
	tokenStarAny           // across levels
	tokenLevels            // "/**/": a slash, or anything between two slashes
)

type token struct {
	kind tokenKind
	c    rune
}

// compileGlob compiles a pattern. In a path, * and ? stop at slashes.
func compileGlob(pattern string, path bool) glob {
	ts := tokens(pattern, path)
	prefix := literalRun(ts)
	ts = ts[utf8.RuneCountInString(prefix):]
	suffix := ""
	for len(ts) > 0 && ts[len(ts)-1].kind == tokenByte {
		suffix = string(ts[len(ts)-1].c) + suffix
		ts = ts[:len(ts)-1]
	}
	g := glob{prefix: prefix, suffix: suffix}
	switch {
	case len(ts) == 0:
		g.shape = globLiteral
	case len(ts) == 1 && ts[0].kind == tokenStarAny:
		g.shape = globAny
	case len(ts) == 1 && ts[0].kind == tokenStar:
		g.shape = globInLevel
	default:
		g.shape, g.middle = globTokens, ts
		for i := range ts {
			if run := literalRun(ts[i:]); len(run) > len(g.inside) {
				g.inside = run
			}
		}
	}
	return g
}

// literalRun is the text that the tokens begin with.
func literalRun(ts []token) string {
	var b strings.Builder
	for _, t := range ts {
		if t.kind != tokenByte {
			break
		}
		b.WriteRune(t.c)
	}
	return b.String()
}

func tokens(pattern string, path bool) []token {
	var out []token
	for i := 0; i < len(pattern); {
		rest := pattern[i:]
		switch {
		case path && strings.HasPrefix(rest, "/**/"):
			out = append(out, token{kind: tokenLevels})
			i += len("/**/")
			for strings.HasPrefix(pattern[i:], "**/") {
				i += len("**/")
			}
		case rest[0] == '*':
			n := len(rest) - len(strings.TrimLeft(rest, "*"))
			kind := tokenStarAny
			if path && n == 1 {
				kind = tokenStar
			}
			out = append(out, token{kind: kind})
			i += n
		case rest[0] == '?' && path:
			out = append(out, token{kind: tokenOne})
			i++
		case rest[0] == '?':
			out = append(out, token{kind: tokenOneAny})
			i++
		default:
			c, n := utf8.DecodeRuneInString(rest)
			out = append(out, token{c: c})
			i += n
		}
	}
	return out
}

// match reports whether the whole text matches.
func (g *glob) match(text string) bool {
	if g.shape == globLiteral {
		return text == g.prefix
	}
	if len(text) < len(g.prefix)+len(g.suffix) || !strings.HasPrefix(text, g.prefix) || !strings.HasSuffix(text, g.suffix) {
		return false
	}
	rest := text[len(g.prefix) : len(text)-len(g.suffix)]
	switch g.shape {
	case globInLevel:
		return strings.IndexByte(rest, '/') < 0
	case globTokens:
		return strings.Contains(rest, g.inside) && matchTokens(g.middle, rest)
	}
	return true
}

// matchTokens follows all ways to match at once: at[i] says that the text so
// far can be matched by the first i tokens. A star keeps its own place alive;
// levels do so once their first slash is read.
func matchTokens(ts []token, text string) bool {
	at, next := make([]bool, len(ts)+1), make([]bool, len(ts)+1)
	between := make([]bool, len(ts)) // the slashes of tokenLevels
	at[0] = true
	skipStars(ts, at)
	for _, c := range text {
		clear(next)
		alive := false
		for j, t := range ts {
			if t.kind == tokenLevels {
				begun := between[j] || at[j] && c == '/'
				next[j+1] = next[j+1] || begun && c == '/'
				between[j] = begun
				alive = alive || begun
				continue
			}
			if !at[j] {
				continue
			}
			step, stay := t.accepts(c)
			next[j+1] = next[j+1] || step
			next[j] = next[j] || stay
			alive = alive || step || stay
		}
		if !alive {
			return false
		}
		at, next = next, at
		skipStars(ts, at)
	}
	return at[len(ts)]
}

// accepts says whether a token takes c and is done, or takes it and goes on.
func (t token) accepts(c rune) (step, stay bool) {
	switch t.kind {
	case tokenByte:
		return c == t.c, false
	case tokenOne:
		return c != '/', false
	case tokenOneAny:
		return true, false
	case tokenStar:
		return false, c != '/'
	}
	return false, true
}

// skipStars lets every star that is reached match nothing.
func skipStars(ts []token, at []bool) {
	for j, t := range ts {
		if at[j] && (t.kind == tokenStar || t.kind == tokenStarAny) {
			at[j+1] = true
		}
	}
}

// A globList matches if one of its globs does. What is not there ("") no glob
// matches.
type globList []glob

func compileGlobs(patterns []string, path bool) globList {
	out := make(globList, len(patterns))
	for i, p := range patterns {
		out[i] = compileGlob(p, path)
	}
	return out
}

func (gs globList) match(text string) bool {
	if text == "" {
		return false
	}
	for i := range gs {
		if gs[i].match(text) {
			return true
		}
	}
	return false
}
