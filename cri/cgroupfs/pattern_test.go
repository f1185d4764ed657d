package cgroupfs

import (
	"strings"
	"testing"
	"time"
)

func TestPattern(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, path string
		whole, below  bool
	}{
		{"/system.slice/*.service", "/", false, true},
		{"/system.slice/*.service", "/system.slice", false, true},
		{"/system.slice/*.service", "/system.slice/a.service", true, false},
		{"/system.slice/*.service", "/system.slice/a.service/x", false, false},
		{"/system.slice/*.service", "/user.slice", false, false},
		{"/docker/**", "/docker", true, true},
		{"/docker/**", "/docker/a/b", true, true},
		{"/docker/**", "/", false, true},
		{"/**/x", "/a/b/x", true, true},
		{"/**/x", "/x", true, true},
		{"/**/x", "/a", false, true},
		{"/a/**/b/*", "/a/b/c", true, true},
		{"/a/**/b/*", "/a/z/z/b/c", true, true},
		{"/a/**/b/*", "/b", false, false},
		{"/a?[xy]", "/abx", true, false},
	}
	for _, tt := range tests {
		t.Run(tt.pattern+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			p, err := parsePattern(tt.pattern)
			if err != nil {
				t.Fatal(err)
			}
			whole, below := patterns{p}.match(tt.path)
			if whole != tt.whole || below != tt.below {
				t.Errorf("got %v, %v; want %v, %v", whole, below, tt.whole, tt.below)
			}
		})
	}
}

func TestPatternErrors(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "/", "relative", "/a/", "/a//b", "/../a", "/["} {
		if p, err := parsePattern(s); err == nil {
			t.Errorf("%q: no error but %v", s, p)
		}
	}
}

// FuzzPattern checks that a cgroup's name cannot make the match slow or wrong:
// what lies below a whole match's parent must have been announced as possible.
func FuzzPattern(f *testing.F) {
	f.Add("/a/**/b/*", "/a/b/c")
	f.Add("/**/**/**", "/a/a/a/a")
	f.Fuzz(func(t *testing.T, text, rel string) {
		p, err := parsePattern(text)
		if err != nil || !strings.HasPrefix(rel, "/") || len(p) > 8 || len(rel) > 256 {
			return
		}
		start := time.Now()
		ps := patterns{p}
		whole, _ := ps.match(rel)
		if i := strings.LastIndexByte(rel, '/'); whole && rel != "/" {
			if _, below := ps.match(rel[:max(i, 1)]); !below {
				t.Errorf("%q matches %q, but nothing below its parent", text, rel)
			}
		}
		if time.Since(start) > 5*time.Second {
			t.Errorf("%q against %q took %v", text, rel, time.Since(start))
		}
	})
}
