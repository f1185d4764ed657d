package casebook

import (
	"strings"
	"testing"
)

func FuzzID(f *testing.F) {
	f.Add("20261121T061502-7f3a")
	f.Add("../..")
	f.Fuzz(func(t *testing.T, s string) {
		if at, ok := TimeOf(s); ok {
			if !strings.HasPrefix(s, at.Format(idTime)+"-") || strings.ContainsAny(s, "/.\x00") {
				t.Errorf("TimeOf(%q) = %v", s, at)
			}
			if got, err := findID([]string{s}, s); got != s || err != nil {
				t.Errorf("findID does not find %q: %v", s, err)
			}
		}
		if CheckPart(s) == nil && strings.ContainsAny(s, "/.\\*\x00") {
			t.Errorf("CheckPart lets %q pass", s)
		}
	})
}

func FuzzRecord(f *testing.F) {
	if data, err := marshal(newRecord("20261121T061502-7f3a")); err == nil {
		f.Add(data)
	}
	f.Add([]byte(`{"id":"20261121T061502-7f3a","facts":{"limitBytes":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadRecord(strings.NewReader(string(data)))
		if (r == nil) == (err == nil) {
			t.Fatalf("value and error: %v, %v", r, err)
		}
		if r != nil {
			if _, err := marshal(r); err != nil {
				t.Errorf("a record that was read cannot be written: %v", err)
			}
		}
	})
}

func FuzzTimeline(f *testing.F) {
	f.Add(`{"at":"2026-11-21T06:15:03Z","what":"held"}` + "\n{\n")
	f.Fuzz(func(t *testing.T, s string) {
		entries, skipped, _ := ParseTimeline(strings.NewReader(s))
		if n := strings.Count(s, "\n") + 1; len(entries)+skipped > n {
			t.Errorf("%d entries and %d skipped of %d lines", len(entries), skipped, n)
		}
	})
}
