package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPack is no test: it copies the programs for a machine without a compiler
// into $ARBITER_E2E_PACK.
func TestPack(t *testing.T) {
	to := os.Getenv("ARBITER_E2E_PACK")
	if to == "" {
		t.Skip("only for make test-guest")
	}
	from := daemonBinaries(t)
	must(os.MkdirAll(to, 0o755))
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "arbiterd", "arbiterctl", "memleak"} {
		if out, err := exec.Command("cp", filepath.Join(from, name), filepath.Join(to, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}
