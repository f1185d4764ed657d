package cgroup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Glob lists the cgroups of the memory hierarchy whose path one of the
// patterns matches, sorted. `*` and `?` stop at a slash, `**` crosses levels,
// and /a/**/b is also /a/b.
func (s *FS) Glob(patterns []string) ([]string, error) {
	var found []string
	for _, p := range patterns {
		match, err := globRegexp(p)
		if err != nil {
			return nil, err
		}
		d, err := openDir(s.mounts.memory, globRoot(p))
		if err != nil {
			if ignoreGone(err) == nil {
				continue // nothing is there to match
			}
			return nil, err
		}
		err = d.walk(func(d *dir) error {
			if match.MatchString(d.path) {
				found = append(found, d.path)
			}
			return nil
		})
		d.close()
		if err != nil {
			return nil, fmt.Errorf("glob %q: %w", p, err)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// globRoot is the deepest directory that holds everything a pattern can match.
func globRoot(pattern string) string {
	literal := pattern
	if i := strings.IndexAny(pattern, "*?"); i >= 0 {
		literal = pattern[:i]
		literal = literal[:strings.LastIndex(literal, "/")+1]
	}
	return "/" + strings.Trim(literal, "/")
}

// globRegexp compiles a pattern. A backslash is no escape: systemd's unit
// names are full of them.
func globRegexp(pattern string) (*regexp.Regexp, error) {
	if !strings.HasPrefix(pattern, "/") {
		return nil, fmt.Errorf("glob %q: must begin with a slash", pattern)
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for rest := pattern; rest != ""; {
		token := globToken(rest)
		rest = rest[len(token):]
		switch token {
		case "/**/":
			b.WriteString(`/(?:.*/)?`)
		case "**":
			b.WriteString(`.*`)
		case "*":
			b.WriteString(`[^/]*`)
		case "?":
			b.WriteString(`[^/]`)
		default:
			b.WriteString(regexp.QuoteMeta(token))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("glob %q: %w", pattern, err)
	}
	return re, nil
}

// globToken is the first token of a pattern.
func globToken(s string) string {
	for _, t := range []string{"/**/", "**", "*", "?"} {
		if strings.HasPrefix(s, t) {
			return t
		}
	}
	if i := strings.IndexAny(s[1:], "/*?"); i >= 0 {
		return s[:i+1]
	}
	return s
}
