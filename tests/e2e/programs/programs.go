// Package programs builds what the end-to-end tests run: the container runtimes
// from their modules, once per go.sum, and the product. Its functions are
// called in the directory of the tests' module.
package programs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Runtimes gives the directory with containerd, its shim, ctr and runc. It
// lies in the product's cache and is built if go.sum has changed.
func Runtimes(ctx context.Context) (dir string, err error) {
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		return "", err
	}
	dir, err = filepath.Abs(filepath.Join("../../.cache/e2e", fmt.Sprintf("%x", sha256.Sum256(sum))[:16]))
	if err != nil {
		return "", err
	}
	return dir, buildRuntimes(ctx, dir)
}

// Product builds the named programs of the product into dir. They change more
// often than go.sum does: go build decides whether there is anything to do.
func Product(ctx context.Context, dir string, names ...string) error {
	args := []string{"-o", dir + "/"}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	return goBuild(ctx, "../..", "CGO_ENABLED=0", args...)
}

// buildRuntimes fills dir unless it is there: it is renamed into place whole.
func buildRuntimes(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := installSeccomp(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	const containerd = "github.com/containerd/containerd/v2/cmd/"
	if err := goBuild(ctx, ".", "CGO_ENABLED=0", "-tags", "no_btrfs no_devmapper no_zfs", "-ldflags", "-s -w", "-o", tmp+"/",
		containerd+"containerd", containerd+"containerd-shim-runc-v2", containerd+"ctr"); err != nil {
		return err
	}
	// runc enters namespaces in C before Go's threads start.
	if err := goBuild(ctx, ".", "CGO_ENABLED=1", "-tags", "netgo osusergo seccomp", "-ldflags", "-s -w -extldflags -static",
		"-o", tmp+"/", "github.com/opencontainers/runc"); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return removeOlder(dir)
}

// removeOlder removes the builds of earlier versions of go.sum: their names
// are hashes of the same length.
func removeOlder(dir string) error {
	names, err := filepath.Glob(filepath.Join(filepath.Dir(dir), strings.Repeat("[0-9a-f]", 16)))
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != dir {
			err = errors.Join(err, os.RemoveAll(name))
		}
	}
	return err
}

func goBuild(ctx context.Context, dir, cgo string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return nil
}

// installSeccomp gets the library that runc is linked with, on Debian.
func installSeccomp(ctx context.Context) error {
	if exec.CommandContext(ctx, "pkg-config", "--static", "--exists", "libseccomp").Run() == nil {
		return nil
	}
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", "libseccomp-dev", "pkg-config"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install libseccomp-dev, which runc needs: %w\n%s", err, out)
		}
	}
	return nil
}
