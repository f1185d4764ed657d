package main

import (
	"bufio"
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImagePackage(t *testing.T) {
	t.Parallel()
	const depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n"
	for series, want := range map[string]string{
		"6.1":  "linux-image-6.1.0-56-cloud-amd64",
		"6.12": "", // another machine's meta package is another series
		"6":    "linux-image-6.1.0-56-cloud-amd64",
	} {
		if got := imagePackage(depends, series); got != want {
			t.Errorf("imagePackage(%q) = %q, want %q", series, got, want)
		}
	}
}

func TestSourceListNamesTheSecuritySuite(t *testing.T) {
	t.Parallel()
	got := sourceList([]string{"http://mirror/debian/", "http://mirror/debian-security/"}, "bullseye")
	for _, want := range []string{" http://mirror/debian/ bullseye main\n", " http://mirror/debian-security/ bullseye-security main\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("source list\n%slacks %q", got, want)
		}
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	const console = "\x1bc\x1b[?7lSeaBIOS (version 1)\r\n\r\nBooting from ROM...\r\n" +
		"=== RUN   TestKernelA\r\n    a_test.go:12: needs kernel feature: psi\r\n--- SKIP: TestKernelA (0.00s)\r\n" +
		"--- PASS: TestKernelB (0.00s)\r\n    --- FAIL: TestKernelC/sub (0.00s)\r\n" +
		"\r\nguest-exit: 7\r\n[   3.1] reboot: Power down\r\n"
	var out bytes.Buffer
	got := follow(strings.NewReader(console), &out)
	want := transcript{ended: true, status: 7, passed: 1, failed: 1,
		skips: []string{"TestKernelA: needs kernel feature: psi"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(transcript{})); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(out.String(), "=== RUN   TestKernelA\n") || strings.Contains(out.String(), "guest-exit") {
		t.Errorf("wrong lines shown:\n%s", out.String())
	}
	if got := follow(strings.NewReader("Kernel panic\n"), &out); got.ended {
		t.Error("a panic counts as an end with a status")
	}
}

func TestScriptKeepsTheFirstFailure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var script strings.Builder
	script.WriteString("status=0\n")
	step(&script, dir, []string{"sh", "-c", "exit 0"})
	step(&script, dir, []string{"sh", "-c", `[ "$0" = "it's" ] && exit 5`, "it's"})
	step(&script, dir, []string{"sh", "-c", "exit 6"})
	script.WriteString("exit $status\n")
	cmd := exec.Command("sh", "-c", script.String())
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("exit status %d (%v), want 5", cmd.ProcessState.ExitCode(), err)
	}
}

// The archive is checked by the program that defines the format.
func TestArchive(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("needs program: cpio")
	}
	var b bytes.Buffer
	c := &cpio{w: bufio.NewWriter(&b), made: map[string]bool{}}
	for _, f := range []file{
		{name: "/src/a/x", mode: 0o755, data: []byte("12345")},
		{name: "/src/a/y", mode: 0o644, data: nil},
	} {
		if err := c.add(f); err != nil {
			t.Fatal(err)
		}
	}
	c.trailer()
	if err := c.w.Flush(); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"-t":                           "src\nsrc/a\nsrc/a/x\nsrc/a/y\n",
		"-i --to-stdout --quiet *a/x*": "12345",
	} {
		cmd := exec.Command("cpio", strings.Fields(args)...)
		cmd.Stdin = bytes.NewReader(b.Bytes())
		got, err := cmd.Output()
		if err != nil || string(got) != want {
			t.Errorf("cpio %s: %q, %v; want %q", args, got, err, want)
		}
	}
}
