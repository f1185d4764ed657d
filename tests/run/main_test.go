package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	t.Parallel()
	has := func(f string) (present, known bool) { return f == "here", f == "here" || f == "absent" }
	for _, tc := range []struct {
		name, output, want string
		failed             bool
	}{
		{"explained", "x_test.go:1: needs kernel feature: absent\n", "--- SKIP: p TestX: this kernel lacks absent\n0 passed, 0 failed, 1 skipped\n", false},
		{"feature is there", "x_test.go:1: needs kernel feature: here\n", "--- UNEXPECTED SKIP: p TestX: this kernel has here\n0 passed, 0 failed, 1 skipped\n", true},
		{"feature is unknown", "x_test.go:1: needs kernel feature: moon\n", "--- UNEXPECTED SKIP: p TestX: \"moon\" is no known kernel feature\n0 passed, 0 failed, 1 skipped\n", true},
		{"no reason", "x_test.go:1: not today\n", "--- UNEXPECTED SKIP: p TestX: it names no kernel feature\n0 passed, 0 failed, 1 skipped\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			s := newSummary(&out)
			s.event(event{Action: "output", Package: "p", Test: "TestX", Output: tc.output})
			s.event(event{Action: "skip", Package: "p", Test: "TestX"})
			if failed := s.close(has); failed != tc.failed || out.String() != tc.want {
				t.Errorf("failed %v, said\n%s", failed, out.String())
			}
		})
	}
}

func TestSummaryShowsFailures(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newSummary(&out)
	s.read(strings.NewReader(`{"Action":"output","Package":"p","Test":"TestA","Output":"why\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
`))
	s.close(nil)
	if got, want := out.String(), "why\nFAIL\tp\t0.1s\n1 passed, 1 failed, 0 skipped\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}
