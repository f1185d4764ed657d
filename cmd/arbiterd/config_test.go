package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "arbiter.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// An empty file runs, and the shipped one says nothing but the defaults.
func TestShippedConfigIsTheDefault(t *testing.T) {
	t.Parallel()
	empty, err := loadConfig(write(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := loadConfig("../../etc/arbiter.toml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(empty, shipped); diff != "" {
		t.Errorf("empty and shipped differ (-empty +shipped):\n%s", diff)
	}
	if empty.Budget.Held != 16 || empty.State.Retain != 14*24*time.Hour || empty.Node.MaxPressure != 40 {
		t.Errorf("defaults are %+v", empty)
	}
	if b := empty.budget(100 << 30); b.BorrowedBytes != 10<<30 {
		t.Errorf("of 100 GiB %d bytes may be lent", b.BorrowedBytes)
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", "[budget]\nhold = 3\n", `arbiter.toml:2:1: error: budget.hold: unknown key (did you mean "held"?)`},
		{"unknown table", "[budgets]\n", `did you mean "budget"?`},
		{"missing unit", "[state]\nretain = 14\n", "arbiter.toml:2:10: error: state.retain"},
		{"bad choice", "[log]\nlevel = \"loud\"\n", `arbiter.toml:2:9: error: log.level: "loud"`},
		{"no TOML", "[budget\n", "arbiter.toml:1"},
		{"negative budget", "[budget]\nheld = -1\n", "budget.held"},
		{"upload without bucket", "[upload.x]\nendpoint = \"https://s3.example.com\"\n", "upload.x.bucket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := loadConfig(write(t, tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}

// Only the default file may be missing.
func TestConfigMissing(t *testing.T) {
	t.Parallel()
	if _, err := loadConfig(filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("a file that was named and is missing is no error")
	}
}
