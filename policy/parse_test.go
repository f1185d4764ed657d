package policy

import (
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Size{
		"64MiB": {Bytes: 64 << 20}, "1.5GiB": {Bytes: 3 << 29}, "4KiB": {Bytes: 4096}, "2TiB": {Bytes: 2 << 40},
		"100B": {Bytes: 100}, "0MiB": {}, "25%": {Percent: 25}, "12.5%": {Percent: 12.5}, "0%": {},
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %+v, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"64": "lacks a unit", "": "is empty", "64MB": "is not a size", "64M": "is not a size", "-1MiB": "is not a size",
		"MiB": "is not a size", "1e3MiB": "is not a size", "0x10MiB": "is not a size", "1_000MiB": "is not a size",
		"NaN%": "is not a share", "+5%": "is not a share", "10001%": "too large", ".5GiB": "is not a size", "5.GiB": "is not a size",
		"99999999TiB": "more memory than", "64 MiB": "is not a size", "64mib": "is not a size", "%": "is not a share",
	} {
		if got, err := ParseSize(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSize(%q) = %+v, %v; want an error with %q", s, got, err, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{
		"20s": 20 * time.Second, "14d": 14 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"500ms": 500 * time.Millisecond, "0s": 0, "0.5d": 12 * time.Hour, "1.5h": 90 * time.Minute,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"20", "0", "", "-5s", "+5s", "5", "1d-5h", "soon", "d", "1d5", "1h1d", "9999999d", "99999999999h", "1d0", "s"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %s, no error", s, got)
		}
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{
		0: "0B", 1023: "1023B", 1024: "1KiB", 64 << 20: "64MiB", 3 << 29: "1.5GiB", 67108864 + 1: "64MiB", 1<<64 - 1: "16777216TiB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 90 * time.Second: "1m30s", time.Hour: "1h", 2 * time.Minute: "2m", 10 * time.Second: "10s",
		90 * time.Minute: "1h30m", 36 * time.Hour: "36h", 1500 * time.Millisecond: "1.5s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %s, want %s", d, got, want)
		}
	}
}

func TestSizeOf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		size  Size
		limit uint64
		want  uint64
	}{
		{Size{Percent: 25}, 256 << 20, 64 << 20},
		{Size{Bytes: 5}, 256 << 20, 5},
		{Size{Percent: 1000}, 1 << 63, 1 << 63},
		{Size{}, 100, 0},
	}
	for _, tt := range tests {
		if got := tt.size.Of(tt.limit); got != tt.want {
			t.Errorf("%v of %d = %d, want %d", tt.size, tt.limit, got, tt.want)
		}
	}
}

// FuzzUnits: a value or an error, and what is formatted is read back.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"64MiB", "25%", "1d12h", "0.1s", "9223372036854775807ns", "1.7GiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if size, err := ParseSize(s); err == nil && size.Percent < 0 {
			t.Errorf("ParseSize(%q) = %+v", s, size)
		}
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 {
			t.Errorf("ParseDuration(%q) = %s", s, d)
		}
		if again, err := ParseDuration(FormatDuration(d)); err != nil || again != d {
			t.Errorf("%q = %s is read back as %s, %v", s, FormatDuration(d), again, err)
		}
	})
}
