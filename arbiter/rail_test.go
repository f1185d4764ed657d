package arbiter

import (
	"strings"
	"testing"
	"time"
)

func TestRail(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	limits := NodeLimits{MaxPressure: 40}
	now := time.Unix(1000, 0)
	r := railState{}
	for _, step := range []struct {
		name      string
		available uint64
		pressure  float64
		after     time.Duration
		shut      string // part of why; "" is open
	}{
		{"plenty", 8 * gib, 0, 0, ""},
		{"under 5 %, at most 512 MiB", 400 << 20, 0, time.Second, "less than [node] min-available = 512MiB"},
		{"a little over the mark is not enough", 520 << 20, 0, time.Second, "min-available"},
		{"well over it, but only just", 2 * gib, 0, time.Second, "min-available"},
		{"not long enough", 2 * gib, 0, 4 * time.Second, "min-available"},
		{"a dip starts the wait anew", 520 << 20, 0, time.Second, "min-available"},
		{"again well over it", 2 * gib, 0, time.Second, "min-available"},
		{"long enough", 2 * gib, 0, 5 * time.Second, ""},
		{"pressure", 8 * gib, 41, time.Second, "pressure (full) is 41%"},
		{"pressure falls", 8 * gib, 35, time.Second, "pressure"},
		{"pressure is gone", 8 * gib, 3, time.Second, "pressure"},
		{"for long enough", 8 * gib, 3, 5 * time.Second, ""},
	} {
		now = now.Add(step.after)
		r = r.next(nodeState{totalBytes: 16 * gib, availableBytes: step.available, pressure: step.pressure}, limits, now)
		if (r.why == "") != (step.shut == "") || !strings.Contains(r.why, step.shut) {
			t.Errorf("%s: rail says %q, want %q in it", step.name, r.why, step.shut)
		}
	}
}

func TestParseMeminfo(t *testing.T) {
	t.Parallel()
	total, available, err := parseMeminfo(strings.NewReader("MemTotal:       24689012 kB\nMemFree:        1 kB\nMemAvailable:   24000000 kB\nHugePages_Total:       0\n"))
	if err != nil || total != 24689012<<10 || available != 24000000<<10 {
		t.Errorf("got %d, %d, %v", total, available, err)
	}
	for _, bad := range []string{"", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"} {
		if _, _, err := parseMeminfo(strings.NewReader(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestParsePressureFull(t *testing.T) {
	t.Parallel()
	const psi = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=12.34 avg60=0.00 avg300=0.00 total=1\n"
	if got := parsePressureFull(strings.NewReader(psi)); got != 12.34 {
		t.Errorf("full avg10 is %g", got)
	}
	if got := parsePressureFull(strings.NewReader("garbage")); got != 0 {
		t.Errorf("of garbage: %g", got)
	}
}

func FuzzParseMeminfo(f *testing.F) {
	f.Add("MemTotal: 1 kB\nMemAvailable: 1 kB\n")
	f.Fuzz(func(t *testing.T, s string) {
		total, available, err := parseMeminfo(strings.NewReader(s))
		if err != nil && (total != 0 || available != 0) {
			t.Errorf("value and error: %d, %d, %v", total, available, err)
		}
		parsePressureFull(strings.NewReader(s))
	})
}
