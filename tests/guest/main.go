// Command guest runs tests and binaries on another kernel: it boots one of
// Debian's cloud kernels under QEMU (TCG, so it works where there is no KVM)
// from an initramfs that holds busybox, the wanted binaries and nothing else,
// streams the serial console, and exits with the job's exit status.
//
//	go run ./tests/guest -kernel 6.1 -pkg ./arbiter/cgroup -run TestKernel
//	go run ./tests/guest -kernel 6.12 -pkg ./arbiter/cgroup,./arbiter/dump -run TestKernel -count 2
//	go run ./tests/guest -kernel 6.1 -v1 -pkg ./arbiter/cgroup -run TestKernel
//	go run ./tests/guest -kernel 6.1 -- bin/arbiterd version
//	go run ./tests/guest -kernel 6.1 -- sh -c 'cat /proc/version; mount'
//	go run ./tests/guest -kernel 6.12 -fetch
//	go run ./tests/guest -suite ci       (make test-guest)
//	go run ./tests/guest -suite all      (make test-guest-all)
//
// It must be started inside the module. Kernels 5.10, 6.1 and 6.12 are taken
// by their meta packages, since Debian removes point releases, and kept below
// .cache/guest; -fetch only does that. 6.12 is built without cgroup v1 memory,
// so -v1 is for 5.10 and 6.1.
//
// # What the job finds in the guest
//
// The module's layout below /src: bin/ as it is on the host, and each tested
// package's directory with its testdata, which is the working directory of its
// tests, so that a relative path such as ../../bin/memleak means the same here
// and there. With -pkg the tests and bin/memleak are compiled with
// CGO_ENABLED=0; everything else in bin/ must be static too, or it is left out,
// which is said.
//
// Cgroup v2 alone at /sys/fs/cgroup with memory, cpu, io and pids enabled in
// the root, or with -v1 the v1 hierarchies memory, freezer, cpu, cpuacct and pids in
// directories below it, and no cgroup2. An ext4 with a journal (page cache is
// real there, the root file system is memory) at /data, which is also TMPDIR;
// it starts empty in every boot. A swap device that is not switched on:
// $GUEST_SWAP. Whatever -host names is at its place. Root has all capabilities, CAP_SYS_RESOURCE too, which the host
// may lack. $GUEST_KERNEL is the value of -kernel. There is no network but lo.
//
// # What comes back
//
// The exit status of the job: 0, or the status of the first test binary that
// failed. 124 is the deadline, 125 a guest that ended without a status (a
// panic: the console tells), 2 a usage error, 1 something on the host. For
// tests the last line counts what passed, failed and was skipped, and each
// skip is repeated with its reason: a skip on a kernel that should have the
// feature is a failure to look at. In the suite for CI a skip that names no
// kernel feature is a failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Exit statuses that are not the job's own.
const (
	exitHost     = 1
	exitUsage    = 2
	exitDeadline = 124
	exitPanic    = 125
)

const usualMemMiB = 3072

type options struct {
	kernel  string
	v1      bool
	vmlinuz string
	pkgs    []string
	run     string
	skip    string
	count   int
	short   bool
	quiet   bool
	timeout time.Duration
	memMiB  int
	cpus    int
	env     []string
	add     []string
	host    []string
	strict  bool // a skip that names no kernel feature is a failure
	fetch   bool
	suite   string
	args    []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	os.Exit(status)
}

func run(ctx context.Context, argv []string, out io.Writer) (int, error) {
	o, err := parse(argv)
	if err != nil {
		return exitUsage, err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return exitHost, err
	}
	s := site{root: root, cache: filepath.Join(root, ".cache", "guest")}
	if err := os.MkdirAll(s.cache, 0o755); err != nil {
		return exitHost, err
	}
	if err := installTools(ctx, out); err != nil {
		return exitHost, err
	}
	if o.suite != "" {
		return runSuite(ctx, s, o, out)
	}
	return runBoot(ctx, s, o, out)
}

// A site is where the rig works.
type site struct {
	root  string // of the module
	cache string // kernels and the empty disk
}

// runBoot takes the kernel, builds the job and boots it.
func runBoot(ctx context.Context, s site, o options, out io.Writer) (status int, err error) {
	if o.vmlinuz == "" {
		if o.vmlinuz, err = fetchKernel(ctx, s.cache, o.kernel, out); err != nil {
			return exitHost, fmt.Errorf("kernel %s: %w", o.kernel, err)
		}
	}
	if o.fetch {
		return 0, nil
	}
	// Two boots may run side by side: everything of one boot is in its own room.
	tmp, err := os.MkdirTemp(s.cache, "boot-")
	if err != nil {
		return exitHost, err
	}
	defer os.RemoveAll(tmp)
	job, err := buildJob(ctx, s.root, tmp, o, out)
	if err != nil {
		return exitHost, err
	}
	initramfs := filepath.Join(tmp, "initramfs.cpio")
	if err := writeInitramfs(initramfs, job); err != nil {
		return exitHost, err
	}
	return boot(ctx, o, initramfs, s.cache, tmp, out)
}

func parse(argv []string) (options, error) {
	var o options
	var pkgs string
	fs := flag.NewFlagSet("guest", flag.ContinueOnError)
	fs.StringVar(&o.kernel, "kernel", "6.1", "Debian kernel series: 5.10, 6.1 or 6.12")
	fs.BoolVar(&o.v1, "v1", false, "boot with cgroup v1 alone instead of v2 alone")
	fs.StringVar(&o.vmlinuz, "vmlinuz", "", "boot this kernel image instead (x86-64; nvme and ext4 built in)")
	fs.StringVar(&pkgs, "pkg", "", "packages to test, separated by commas")
	fs.StringVar(&o.run, "run", "TestKernel", "with -pkg: which tests")
	fs.StringVar(&o.skip, "skip", "", "with -pkg: which of them not")
	fs.IntVar(&o.count, "count", 1, "with -pkg: how many rounds")
	fs.BoolVar(&o.short, "short", false, "with -pkg: -test.short")
	fs.BoolVar(&o.quiet, "q", false, "with -pkg: without -test.v (skips are not listed then)")
	fs.DurationVar(&o.timeout, "timeout", 15*time.Minute, "deadline for the whole boot")
	fs.IntVar(&o.memMiB, "mem", usualMemMiB, "guest memory in MiB")
	fs.IntVar(&o.cpus, "cpus", 2, "guest processors")
	fs.BoolVar(&o.fetch, "fetch", false, "only download the kernel and install the tools")
	fs.StringVar(&o.suite, "suite", "", "run a whole suite: ci or all")
	fs.Func("add", "file or directory below the module to take along, at its place; may be given again", func(s string) error {
		o.add = append(o.add, s)
		return nil
	})
	fs.Func("host", "file, directory or pattern of this machine to take along, at its place, with libraries; may be given again", func(s string) error {
		o.host = append(o.host, s)
		return nil
	})
	fs.Func("env", "NAME=VALUE for the job; may be given again", func(s string) error {
		if !strings.Contains(s, "=") {
			return errors.New("want NAME=VALUE")
		}
		o.env = append(o.env, s)
		return nil
	})
	if err := fs.Parse(argv); err != nil {
		return o, err
	}
	if pkgs != "" {
		o.pkgs = strings.Split(pkgs, ",")
	}
	o.args = fs.Args()
	if _, ok := suites[o.suite]; o.suite != "" && !ok {
		return o, fmt.Errorf("no suite %q: want ci or all", o.suite)
	}
	if len(o.pkgs) == 0 && len(o.args) == 0 && !o.fetch && o.suite == "" {
		return o, errors.New("nothing to run: give -pkg, or -- BINARY args")
	}
	return o, nil
}

// moduleRoot is the directory of the go.mod that the working directory is in.
func moduleRoot(ctx context.Context) (string, error) {
	b, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(b))
	if err != nil || mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("find go.mod: %w", errors.Join(err, errors.New("not inside a module")))
	}
	return filepath.Dir(mod), nil
}
