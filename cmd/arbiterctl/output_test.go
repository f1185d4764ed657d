package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
)

func TestShort(t *testing.T) {
	t.Parallel()
	tests := map[time.Duration]string{
		0:                       "0s",
		1234 * time.Microsecond: "1ms",
		1234 * time.Millisecond: "1.2s",
		12 * time.Second:        "12s",
		192 * time.Second:       "3m12s",
		125 * time.Minute:       "2h5m",
		76 * time.Hour:          "3d4h",
		-5 * time.Second:        "-5s",
	}
	for d, want := range tests {
		if got := short(d); got != want {
			t.Errorf("short(%d) = %s, want %s", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"plain\nnext":       "plain\nnext",
		"\x1b[31mred":       `\u001b[31mred`,
		"\u202egnp.exe":     `\u202egnp.exe`,
		"a\x00b\rc\td":      `a\u0000b\u000dc\u0009d`,
		"Kübel 漢字":          "Kübel 漢字",
		string([]byte{255}): "\ufffd",
	}
	for in, want := range tests {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	a := &app{now: func() time.Time { return now }}
	tests := map[string]api.Hold{
		"kill in 41s":  {Then: "kill", Deadline: now.Add(41*time.Second + 900*time.Millisecond)},
		"kill due":     {Then: "kill", Deadline: now.Add(-time.Second)},
		"hold":         {Then: "hold"},
		"? in 2h0m":    {Deadline: now.Add(2 * time.Hour)},
		"resume in 0s": {Then: "resume", Deadline: now.Add(500 * time.Millisecond)},
	}
	for want, h := range tests {
		if got := a.ends(h); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	tests := map[string]time.Time{
		"24h":                  now.Add(-24 * time.Hour),
		"7d":                   now.Add(-7 * 24 * time.Hour),
		"2026-11-20":           time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC),
		"2026-11-20T06:15:02Z": time.Date(2026, 11, 20, 6, 15, 2, 0, time.UTC),
	}
	for in, want := range tests {
		if got, err := parseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v", in, got, err)
		}
	}
	if _, err := parseTime("soon", now); err == nil {
		t.Error("soon is no time")
	}
}

// A core dump is mostly holes: they must not become disk.
func TestSparseWriter(t *testing.T) {
	t.Parallel()
	want := make([]byte, 8<<20)
	copy(want[1<<20+17:], "data")
	copy(want[4<<20:], strings.Repeat("x", 10000))
	for _, chunk := range []int{1000, 4096, 256 << 10} {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := &sparseWriter{f: f}
		for off := 0; off < len(want); off += chunk {
			if _, err := w.Write(want[off:min(off+chunk, len(want))]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("chunks of %d: other content, %v", chunk, err)
		}
		info, _ := f.Stat()
		if used := info.Sys().(*syscall.Stat_t).Blocks * 512; chunk >= page && used > 128<<10 {
			t.Errorf("chunks of %d: 14 KiB of data take %d bytes of disk", chunk, used)
		}
	}
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	p := progress{name: "core.1", done: 120 << 20, size: 400 << 20}
	if got, want := p.line(2*time.Second), "core.1  120MiB of 400MiB  30%  60MiB/s  4s left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRunIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"pause-list", "--socket", filepath.Join(t.TempDir(), "s")}, &out, &errs); code == exitDone {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}
