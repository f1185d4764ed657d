// Package shipped checks the files that users get beside the programs: the
// unit file, and the snippets of the README.
package shipped

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/arbiterd/arbiter/policy"
)

// The unit file is one that systemd understands in full.
func TestUnitFile(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../../systemd/arbiterd.service")
	if err != nil {
		t.Fatal(err)
	}
	// systemd-analyze wants the program to exist.
	dir := t.TempDir()
	program := filepath.Join(dir, "arbiterd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "arbiterd.service")
	text := strings.ReplaceAll(string(unit), "/usr/sbin/arbiterd", program)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "arbiterd.service:") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// What the promise rests on stays in the unit file.
func TestUnitFileLetsGo(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../../systemd/arbiterd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Type=notify", "ExecStart=/usr/sbin/arbiterd supervise", "ExecStopPost=/usr/sbin/arbiterd release --all",
		"WatchdogSignal=SIGKILL", "Restart=always",
	} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("the unit file lacks %s", line)
		}
	}
}

var fence = regexp.MustCompile("(?s)```toml\n(.*?)```")

// Every policy in the README is one that the daemon would load.
func TestReadmePolicies(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := fence.FindAllStringSubmatch(string(readme), -1)
	if len(found) == 0 {
		t.Fatal("no policy in the README")
	}
	for _, m := range found {
		p, diags := policy.Decode([]policy.File{{Name: "README.md", Data: []byte(m[1])}})
		if p == nil || len(diags) > 0 {
			t.Errorf("%s\n%v", m[1], diags)
		}
	}
}
