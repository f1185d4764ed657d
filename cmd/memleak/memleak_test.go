package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/cmd/memleak/progress"
)

// TestMain lets this binary be memleak: the tests start it as another process.
func TestMain(m *testing.M) {
	if os.Getenv("MEMLEAK_TEST_RUN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func memleak(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "MEMLEAK_TEST_RUN=1")
	return cmd
}

func TestSize(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		want size
		text string
	}{
		{"4096", 4096, "4KiB"},
		{"100", 100, "100"},
		{"64KiB", 64 << 10, "64KiB"},
		{"1.5MiB", 3 << 19, "1536KiB"},
		{"2GiB", 2 << 30, "2GiB"},
		{"7B", 7, "7"},
		{"0", 0, "0"},
	} {
		var s size
		if err := s.Set(tc.in); err != nil || s != tc.want || s.String() != tc.text {
			t.Errorf("%s: got %d (%s), %v; want %d (%s)", tc.in, s, s, err, tc.want, tc.text)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "1e30GiB", "NaN", "10MB", "10 MiB"} {
		var s size
		if err := s.Set(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, s)
		}
	}
	var r rate
	if err := r.Set("20MiB/s"); err != nil || r.size != 20<<20 || r.String() != "20MiB/s" {
		t.Errorf("rate: got %v %v", r, err)
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"--kind nothing", "--touch 0", "--touch 1.5", "--threads 0", "--children -1", "--on-error x",
		"--exit", "--free --exit --ceiling 1MiB", "--verify --touch 0.5", "--block 3 --rate x", "what", "--no-such",
	} {
		if _, err := parseFlags(strings.Fields(args), io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%s: got %v, want errUsage", args, err)
		}
	}
}

func TestHelpNamesEveryKindAndFlag(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run([]string{"--help"}, nil, &out, io.Discard); err == nil {
		t.Fatal("--help: want flag.ErrHelp")
	}
	for _, k := range kinds {
		if !strings.Contains(out.String(), "  "+k.name+" ") {
			t.Errorf("--help does not name kind %s", k.name)
		}
	}
	for _, name := range []string{"--rate SIZE", "--progress FILE", "--hold TIME", "--threads N", "--verify "} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("--help does not name %s:\n%s", name, &out)
		}
	}
}

func TestEveryKindReachesItsCeiling(t *testing.T) {
	t.Parallel()
	names := []string{"mixed"}
	for _, k := range kinds {
		names = append(names, k.name)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "progress")
			out, err := memleak(t.Context(), t, "--kind", name, "--ceiling", "8MiB", "--block", "2MiB", "--threads", "2",
				"--exit", "--verify", "--progress", file, "--dir", t.TempDir()).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			r, err := progress.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			if r.Pages != 8<<20/pageSize || r.TotalErrors() != 0 || r.Mismatches != 0 {
				t.Errorf("%v\n%s", r, out)
			}
			if !strings.Contains(string(out), "memleak: start pid=") || !strings.Contains(string(out), "memleak: done pages=2048") {
				t.Errorf("output: %s", out)
			}
			if inPlace := name != "pipe" && name != "cache"; inPlace != (r.Checked > 0) {
				t.Errorf("%d pages checked", r.Checked)
			}
		})
	}
}

func TestTouchShareChildrenAndRounds(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]uint64{
		"--ceiling 8MiB --touch 0.25 --exit":           512,
		"--ceiling 4MiB --children 2 --exit":           3 * 1024,
		"--ceiling 4MiB --free --rounds 3":             3 * 1024,
		"--ceiling 1MiB --rate 4MiB/s --exit":          256,
		"--ceiling 1MiB --block 100KiB --exit":         256,
		"--kind read --ceiling 100KiB --exit":          25,
		"--kind populate --ceiling 100KiB --exit":      25,
		"--kind cache --ceiling 100KiB --exit":         25,
		"--ceiling 1MiB --hold 10ms --exit":            256,
		"--ceiling 1MiB --wait --exit --verify":        256,
		"--kind thp --ceiling 4MiB --exit":             1024,
		"--kind shm --touch 0.5 --ceiling 1MiB --exit": 128,
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "progress")
			cmd := memleak(t.Context(), t, append(strings.Fields(args), "--progress", file, "--dir", t.TempDir())...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if r, err := progress.Read(file); err != nil || r.Pages != want {
				t.Errorf("got %d pages, %v; want %d", r.Pages, err, want)
			}
		})
	}
}

func TestStaysAtItsCeilingUntilTerm(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	file := filepath.Join(t.TempDir(), "progress")
	cmd := memleak(ctx, t, "--ceiling", "2MiB", "--progress", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitPages(ctx, t, file, 512)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("after SIGINT: %v, want exit status 1", err)
	}
}

func awaitPages(ctx context.Context, t *testing.T, file string, pages uint64) progress.Report {
	t.Helper()
	for {
		r, err := progress.Read(file)
		if err == nil && r.Pages >= pages {
			return r
		}
		if ctx.Err() != nil {
			t.Fatalf("pages %d, %v; want %d", r.Pages, err, pages)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// A changed page must be told: the check itself has to be able to fail.
func TestVerifySeesAChangedPage(t *testing.T) {
	t.Parallel()
	p, err := progress.Create("")
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{o: &options{verify: true, touch: 1, threads: 1, kind: "anon"}, kind: "anon", progress: p, pattern: newPattern(), say: t.Logf}
	if err := w.step(1 << 20); err != nil {
		t.Fatal(err)
	}
	w.verify(1)
	if r := p.Report(); r.Checked != 256 || r.Mismatches != 0 {
		t.Fatalf("untouched: %v", r)
	}
	w.blocks[0].data[5*pageSize+100] ^= 1
	w.verify(1)
	if r := p.Report(); r.Mismatches != 1 {
		t.Errorf("changed: %v", r)
	}
	w.release()
}

func TestPacerDoesNotCatchUp(t *testing.T) {
	t.Parallel()
	p := &pacer{bytesPerSecond: 1 << 20, next: time.Now().Add(-time.Hour)}
	if err := p.wait(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(p.next); left < 500*time.Millisecond {
		t.Errorf("after an hour of standstill the next block is due in %v, want about 1s", left)
	}
}
