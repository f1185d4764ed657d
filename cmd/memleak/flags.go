package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var errUsage = errors.New("wrong usage, see memleak --help")

type options struct {
	kind       string
	rate       rate
	block      size
	touch      float64
	threads    int
	children   int
	ceiling    size
	hold       time.Duration
	exit       bool
	free       bool
	rounds     int
	verify     bool
	onError    string
	ignoreTerm bool
	progress   string
	show       string
	cgroups    []string
	dir        string
	wait       bool
	child      bool
}

const usage = `memleak takes memory and keeps it: for demonstrations, tests and policy trials.

  memleak                                    as fast as it can, until something stops it
  memleak --rate 20MiB/s --ceiling 200MiB    a slow leak that stays at 200 MiB
  memleak --kind populate --block 16MiB --threads 8 --cgroup /sys/fs/cgroup/memory/x
  memleak --ceiling 100MiB --free --hold 2s  a saw tooth
  memleak --show FILE                        print what --progress FILE says

It prints one line at its start and one for the first error of each kind; exit
status 1 after an error that ended it or a changed page (--verify), 2 for wrong
flags. Sizes are written 4096, 64KiB, 1.5MiB, 2GiB.

kinds (--kind):
`

func parseFlags(args []string, stdout io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("memleak", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() { printUsage(fs, stdout) }
	fs.StringVar(&o.kind, "kind", "anon", "what to take; mixed: all kinds in turn")
	fs.Var(&o.rate, "rate", "bytes a second of the process, 0: no limit")
	fs.Var(&o.block, "block", "bytes taken in one go (default 1MiB, smaller with a slow --rate)")
	fs.Float64Var(&o.touch, "touch", 1, "share of the pages that anon, thp and shm touch, above 0 to 1")
	fs.IntVar(&o.threads, "threads", 1, "threads that take memory")
	fs.IntVar(&o.children, "children", 0, "further processes that do the same")
	fs.Var(&o.ceiling, "ceiling", "stop at this much (of each process), 0: never; cache: default 1GiB")
	fs.DurationVar(&o.hold, "hold", 0, "with --exit or --free: stay this long at the ceiling first")
	fs.BoolVar(&o.exit, "exit", false, "exit at the ceiling instead of staying for ever")
	fs.BoolVar(&o.free, "free", false, "give everything back at the ceiling and begin again")
	fs.IntVar(&o.rounds, "rounds", 0, "with --free: end after so many rounds, 0: never")
	fs.BoolVar(&o.verify, "verify", false, "fill pages with a pattern and compare them again and again")
	fs.StringVar(&o.onError, "on-error", "retry", "after a failed system call: retry (10 ms later) or exit")
	fs.BoolVar(&o.ignoreTerm, "ignore-term", false, "do not end on SIGTERM")
	fs.StringVar(&o.progress, "progress", "", "write monotonic times, pages touched and errors to this `FILE` (mapped: costs nothing at the limit)")
	fs.StringVar(&o.show, "show", "", "print a progress `FILE` and exit")
	fs.Func("cgroup", "cgroup `DIRECTORY` to enter before taking memory; may be repeated", func(dir string) error {
		o.cgroups = append(o.cgroups, dir)
		return nil
	})
	fs.StringVar(&o.dir, "dir", os.TempDir(), "directory of kind cache")
	fs.BoolVar(&o.wait, "wait", false, "begin once standard input has a byte or ends")
	fs.BoolVar(&o.child, "child", false, "internal: this is one of --children")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", err, errUsage)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected %q: %w", fs.Arg(0), errUsage)
	}
	return o, o.complete()
}

func printUsage(fs *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, usage)
	for _, k := range kinds {
		fmt.Fprintf(w, "  %-14s%s\n", k.name, k.help)
	}
	fmt.Fprintf(w, "  %-14s%s\n\nflags:\n", "mixed", "all of them in turn")
	fs.VisitAll(func(f *flag.Flag) {
		if f.Name == "child" {
			return
		}
		arg, help := flag.UnquoteUsage(f)
		arg = map[string]string{"value": "SIZE", "duration": "TIME", "int": "N", "float": "SHARE", "string": "NAME"}[arg] + map[bool]string{true: arg}[strings.ToUpper(arg) == arg]
		if def := f.DefValue; def != "" && def != "0" && def != "false" && def != "0s" {
			help += " (default " + def + ")"
		}
		fmt.Fprintf(w, "  %-22s%s\n", strings.TrimSpace("--"+f.Name+" "+arg), help)
	})
}

// complete checks the flags against each other and fills in what follows.
func (o *options) complete() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, errUsage)...)
	}
	if _, ok := kindNamed(o.kind); !ok && o.kind != "mixed" {
		return bad("--kind: no kind %q", o.kind)
	}
	switch {
	case o.touch <= 0 || o.touch > 1:
		return bad("--touch: want more than 0 and at most 1")
	case o.threads < 1 || o.threads > 10000:
		return bad("--threads: want 1 to 10000")
	case o.children < 0 || o.children > 10000:
		return bad("--children: want 0 to 10000")
	case o.onError != "retry" && o.onError != "exit":
		return bad("--on-error: want retry or exit")
	case (o.free || o.exit) && o.ceiling == 0 && o.kind != "cache":
		return bad("--free and --exit need a --ceiling")
	case o.free && o.exit:
		return bad("--free and --exit exclude each other")
	case o.verify && o.touch < 1:
		return bad("--verify needs --touch 1")
	}
	if o.kind == "cache" && o.ceiling == 0 {
		o.ceiling = 1 << 30 // a disk is not meant to be filled
	}
	if o.block == 0 {
		o.block = 1 << 20
		if o.rate.size > 0 {
			o.block = min(o.block, max(o.rate.size/100, 64<<10))
		}
	}
	o.block = (o.block + pageSize - 1) &^ (pageSize - 1)
	if o.child {
		o.children, o.wait, o.cgroups = 0, false, nil
	}
	return nil
}

// dieWithParent lets no child of a killed run live on.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
}
