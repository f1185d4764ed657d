package cgroupfs

import (
	"fmt"
	"path"
	"strings"
)

// A pattern is a glob of cgroup paths by components: `*`, `?` and `[...]` stay
// within one, `**` stands for any number of them.
type pattern []string

func parsePattern(s string) (pattern, error) {
	if !strings.HasPrefix(s, "/") || path.Clean(s) != s || s == "/" {
		return nil, fmt.Errorf("cgroup pattern %q: must be a clean path that starts with a slash", s)
	}
	p := pattern(strings.Split(s[1:], "/"))
	for _, glob := range p {
		if _, err := path.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("cgroup pattern %q: %w", s, err)
		}
	}
	return p, nil
}

// match tells whether the path's components match the whole pattern, and
// whether a path below it could.
func (p pattern) match(comps []string) (whole, below bool) {
	for {
		if len(p) > 0 && p[0] == "**" {
			return p.matchAny(comps)
		}
		if len(comps) == 0 {
			return len(p) == 0, len(p) > 0
		}
		if len(p) == 0 {
			return false, false
		}
		// The pattern's syntax was checked when it was parsed.
		if ok, err := path.Match(p[0], comps[0]); err != nil || !ok {
			return false, false
		}
		p, comps = p[1:], comps[1:]
	}
}

// matchAny is match for a pattern that starts with `**`: anything may follow
// below, and the rest may match after any number of components.
func (p pattern) matchAny(comps []string) (whole, below bool) {
	for skip := range len(comps) + 1 {
		if ok, _ := p[1:].match(comps[skip:]); ok {
			return true, true
		}
	}
	return false, true
}

type patterns []pattern

func (ps patterns) match(rel string) (whole, below bool) {
	var comps []string
	if rel != "/" {
		comps = strings.Split(rel[1:], "/")
	}
	for _, p := range ps {
		w, b := p.match(comps)
		whole, below = whole || w, below || b
	}
	return whole, below
}
