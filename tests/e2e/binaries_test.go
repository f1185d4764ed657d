package e2e

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/tests/e2e/programs"
)

// binaries gives the directory with containerd, its shim, runc and memleak.
func binaries(t testing.TB) string {
	t.Helper()
	dir, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// daemonBinaries is binaries with arbiterd and arbiterctl in it.
func daemonBinaries(t testing.TB) string {
	t.Helper()
	dir := binaries(t)
	if err := buildDaemon(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// prebuilt is the directory that has everything, if there is no compiler.
var prebuilt = os.Getenv("ARBITER_E2E_BIN")

var buildOnce = sync.OnceValues(func() (string, error) {
	if prebuilt != "" {
		return prebuilt, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	dir, err := programs.Runtimes(ctx)
	if err != nil {
		return "", err
	}
	return dir, programs.Product(ctx, dir, "memleak")
})

var buildDaemon = sync.OnceValue(func() error {
	dir, err := buildOnce()
	if err != nil || prebuilt != "" {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return programs.Product(ctx, dir, "arbiterd", "arbiterctl")
})
