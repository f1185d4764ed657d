package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A suiteBoot is one boot of a suite.
type suiteBoot struct {
	kernel string
	v1     bool
	pkgs   []string // none: every package that has kernel tests
	run    string
	skip   string
	host   []string
	add    []string // below the module
	env    []string
	count  int
	memMiB int // 0 is the usual
	limit  time.Duration
}

const (
	matrix = "TestKernelV2Matrix"
	holds  = "./arbiter/cgroup"

	stories = "./tests/integration"
	dumps   = "./arbiter/dump"
)

// debuggers is a boot in which debuggers open what was held there, as they do on
// the build machine in every run of the tests. What cannot be built in a guest is
// in .cache/debug already.
var debuggers = suiteBoot{
	kernel: "6.1", pkgs: []string{dumps}, run: "TestKernelDebuggers", count: 1, limit: 15 * time.Minute,
	host: slices.Concat(jdk, gdb), add: []string{".cache/debug"}, env: []string{jdkPath},
}

// suites are the boots of make test-guest and make test-guest-all. Both sides
// of the code run on two kernels: version 1 here and on whatever the build
// machine has.
var suites = map[string][]suiteBoot{
	"ci": {
		{kernel: "6.1", pkgs: []string{holds}, run: matrix, count: 2, limit: 10 * time.Minute},
		{kernel: "6.12", pkgs: []string{holds}, run: matrix, count: 2, limit: 10 * time.Minute},
		{kernel: "6.1", pkgs: []string{stories}, run: "TestKernel", skip: "TestKernelExampleJVM", count: 1, limit: 20 * time.Minute},
		{kernel: "6.1", v1: true, pkgs: []string{stories}, run: "TestKernel(Resume|Running|Operator|Foreign|OneOwner|Children)", count: 1, limit: 10 * time.Minute},
	},
	"all": {
		{kernel: "6.1", run: "TestKernel", host: jdk, count: 1, memMiB: 4096, limit: time.Hour},
		{kernel: "6.12", run: "TestKernel", host: jdk, count: 1, memMiB: 4096, limit: time.Hour},
		{kernel: "5.10", pkgs: []string{holds}, run: "TestKernel", count: 1, limit: 25 * time.Minute},
		{kernel: "6.1", v1: true, run: "TestKernel", count: 1, limit: 20 * time.Minute},
		{kernel: "5.10", v1: true, pkgs: []string{holds}, run: "TestKernel", count: 1, limit: 20 * time.Minute},
		debuggers,
		{kernel: "6.1", pkgs: []string{holds}, run: matrix, count: 20, limit: 90 * time.Minute},
		{kernel: "6.12", pkgs: []string{holds}, run: matrix, count: 20, limit: 90 * time.Minute},
		{kernel: "5.10", pkgs: []string{holds}, run: matrix, count: 20, limit: 90 * time.Minute},
	},
}

func (b suiteBoot) name() string {
	version := "v2"
	if b.v1 {
		version = "v1"
	}
	return fmt.Sprintf("linux %s, cgroup %s, %s × %d", b.kernel, version, b.run, b.count)
}

// runSuite boots every boot of a suite, also after a failure, and returns the
// first status that is not 0.
func runSuite(ctx context.Context, s site, o options, out io.Writer) (int, error) {
	all, err := kernelPackages(s.root)
	if err != nil {
		return exitHost, err
	}
	status := 0
	var errs []error
	var lines []string
	for _, b := range suites[o.suite] {
		if ctx.Err() != nil {
			return exitHost, ctx.Err()
		}
		fmt.Fprintf(out, "\nguest: %s\n", b.name())
		o.kernel, o.v1, o.run, o.skip, o.count, o.timeout = b.kernel, b.v1, b.run, b.skip, b.count, b.limit
		o.host, o.env, o.add, o.strict = b.host, b.env, nil, o.suite == "ci"
		o.memMiB = cmp.Or(b.memMiB, usualMemMiB)
		for _, a := range b.add {
			o.add = append(o.add, filepath.Join(s.root, a))
		}
		if o.pkgs = b.pkgs; o.pkgs == nil {
			o.pkgs = all
		}
		began := time.Now()
		got, err := runBoot(ctx, s, o, out)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.name(), err))
		}
		if status == 0 {
			status = got
		}
		lines = append(lines, fmt.Sprintf("guest: %s: status %d in %v", b.name(), got, time.Since(began).Round(time.Second)))
	}
	fmt.Fprintln(out, "\n"+strings.Join(lines, "\n"))
	return status, errors.Join(errs...)
}

// kernelPackages lists the module's packages that have tests named
// TestKernel..., as arguments for go list. Modules inside it have their own.
func kernelPackages(root string) ([]string, error) {
	var pkgs []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, inner := os.Stat(filepath.Join(p, "go.mod"))
			if p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || inner == nil) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(b, []byte("\nfunc TestKernel")) {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if pkg := "./" + filepath.ToSlash(rel); !slices.Contains(pkgs, pkg) {
			pkgs = append(pkgs, pkg)
		}
		return err
	})
	return pkgs, err
}
