// Command pack copies the programs of the end-to-end tests into a directory,
// for a machine that has no compiler: go run ./pack DIRECTORY.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/arbiterd/arbiter/tests/e2e/programs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: pack DIRECTORY")
	}
	to := args[0]
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	from, err := programs.Runtimes(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if err := copyFile(filepath.Join(to, name), filepath.Join(from, name)); err != nil {
			return err
		}
	}
	abs, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	return programs.Product(ctx, abs, "arbiterd", "arbiterctl", "memleak")
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return errors.Join(fmt.Errorf("copy %s: %w", from, err), dst.Close())
	}
	return dst.Close()
}
