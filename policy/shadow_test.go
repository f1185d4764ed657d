package policy

import "testing"

func TestMatchCovers(t *testing.T) {
	t.Parallel()
	bytes := func(n uint64) Size { return Size{Bytes: n} }
	tests := []struct {
		name         string
		outer, inner Match
		want         bool
	}{
		{"all", Match{All: true}, Match{Pod: []string{"x"}}, true},
		{"not all", Match{Pod: []string{"x"}}, Match{All: true}, false},
		{"glob", Match{Pod: []string{"a*", "b*"}}, Match{Pod: []string{"bx", "a*z"}}, true},
		{"one too many", Match{Pod: []string{"a*"}}, Match{Pod: []string{"ax", "b"}}, false},
		{"star in a level", Match{Cgroup: []string{"/a/*"}}, Match{Cgroup: []string{"/a/**"}}, false},
		{"stars across levels", Match{Cgroup: []string{"/a/**"}}, Match{Cgroup: []string{"/a/b/*.service"}}, true},
		{"at most", Match{LimitAtMost: bytes(2)}, Match{LimitAtMost: bytes(1)}, true},
		{"at most, larger", Match{LimitAtMost: bytes(1)}, Match{LimitAtMost: bytes(2)}, false},
		{"at most, any", Match{LimitAtMost: bytes(1)}, Match{All: true}, false},
		{"at least", Match{LimitAtLeast: bytes(1)}, Match{LimitAtLeast: bytes(2)}, true},
		{"at least, smaller", Match{LimitAtLeast: bytes(2)}, Match{LimitAtLeast: bytes(1)}, false},
		{"labels", Match{Labels: map[string]string{"a": "*"}}, Match{Labels: map[string]string{"a": "b", "c": "d"}}, true},
		{"label missing", Match{Labels: map[string]string{"a": "*"}}, Match{Labels: map[string]string{"c": "d"}}, false},
		{"not", Match{All: true, Not: &Match{Pod: []string{"x"}}}, Match{All: true}, false},
		{"same not", Match{All: true, Not: &Match{Pod: []string{"x"}}}, Match{All: true, Not: &Match{Pod: []string{"x*"}}}, true},
		{"narrower not", Match{All: true, Not: &Match{Pod: []string{"x*"}}}, Match{All: true, Not: &Match{Pod: []string{"x"}}}, false},
		{"not of another key", Match{All: true, Not: &Match{QoS: []string{"burstable"}}}, Match{All: true, Not: &Match{Pod: []string{"*"}}}, false},
		{"not with a limit", Match{All: true, Not: &Match{LimitAtMost: bytes(1)}}, Match{All: true, Not: &Match{LimitAtMost: bytes(1)}}, true},
		{"not with another limit", Match{All: true, Not: &Match{LimitAtMost: bytes(2)}}, Match{All: true, Not: &Match{LimitAtMost: bytes(1)}}, false},
	}
	for _, tt := range tests {
		if got := tt.outer.covers(&tt.inner); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"timeout", "timeout", 0}, {"timeuot", "timeout", 1}, {"tmeout", "timeout", 1},
		{"timeoutt", "timeout", 1}, {"rimeout", "timeout", 1}, {"kitten", "sitting", 3},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%s, %s) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
	keys := []string{"timeout", "name", "raise", "on-failure", "if-failed"}
	for word, want := range map[string]string{
		"timeut": "timeout", "onFailure": "on-failure", "if_failed": "if-failed", "rise": "raise", "zzz": "", "": "", "argv": "",
	} {
		if got := nearest(word, keys); got != want {
			t.Errorf("nearest(%s) = %q, want %q", word, got, want)
		}
	}
}
