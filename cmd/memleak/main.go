// Memleak takes memory in a chosen way and at a chosen speed, and writes down
// how far it came: for demonstrations, tests and trials of a policy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/cmd/memleak/progress"
)

func main() {
	err := withoutPreemption()
	if err == nil {
		err = run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	}
	if err != nil {
		exit(err)
	}
}

// withoutPreemption starts the program over with the runtime's preemption
// signals off: they make sleeping system calls return early, which would look
// like the kernel's errors.
func withoutPreemption() error {
	const setting = "asyncpreemptoff=1"
	before := os.Getenv("GODEBUG")
	if strings.Contains(before, setting) {
		return nil
	}
	if err := os.Setenv("GODEBUG", strings.TrimPrefix(before+","+setting, ",")); err != nil {
		return err
	}
	self, err := os.Executable() // not /proc/self/exe: the process' name would be "exe"
	if err == nil {
		err = unix.Exec(self, os.Args, os.Environ())
	}
	return fmt.Errorf("start over: %w", err)
}

func exit(err error) {
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "memleak:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	o, err := parseFlags(args, stdout)
	if err != nil {
		return err
	}
	if o.show != "" {
		r, err := progress.Read(o.show)
		if err == nil {
			fmt.Fprint(stdout, r)
		}
		return err
	}
	for _, dir := range o.cgroups {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	if o.wait {
		if _, err := stdin.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("wait for standard input: %w", err)
		}
	}
	p, err := progress.Create(o.progress)
	if err != nil {
		return err
	}
	say := sayer(stderr)
	if !o.child {
		fmt.Fprintln(stdout, "memleak: start", o.describe())
	}
	reap, err := startChildren(o, args, p, say)
	if err != nil {
		return err
	}
	if err := leak(o, p, say); err != nil {
		return err
	}
	if err := reap(); err != nil {
		return err
	}
	return conclude(o, p, stdout)
}

// conclude ends a run that reached its ceiling and was told to exit.
func conclude(o *options, p *progress.Writer, stdout io.Writer) error {
	r := p.Report()
	if !o.child {
		fmt.Fprintf(stdout, "memleak: done pages=%d errors=%d mismatches=%d\n", r.Pages, r.TotalErrors(), r.Mismatches)
	}
	if r.Mismatches > 0 {
		return fmt.Errorf("verify: %d pages changed", r.Mismatches)
	}
	return nil
}

// leak runs this process' workers.
func leak(o *options, p *progress.Writer, say func(string, ...any)) error {
	// The collector would stop every thread, also one that sleeps in a page
	// fault; and a thread that does must not keep the others from running.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(o.threads + 2)
	startThreads(o.threads + min(o.threads, 32) + 16)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, os.Interrupt)
	defer stop()
	if o.ignoreTerm {
		signal.Ignore(unix.SIGTERM)
	}
	pattern := newPattern()
	source, err := patternFile(pattern)
	if err != nil {
		return err
	}
	pace := &pacer{bytesPerSecond: uint64(o.rate.size)}
	errs := make([]error, o.threads)
	var all sync.WaitGroup
	for n := range o.threads {
		w := &worker{o: o, n: n, kind: o.kind, pace: pace, progress: p, say: say, source: source, pattern: pattern, turn: n}
		all.Go(func() { errs[n] = w.run(ctx) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		if ctx.Err() != nil {
			return errors.New("ended by a signal")
		}
		return err
	}
	if o.exit || o.free {
		return endOfHold(ctx, o)
	}
	<-ctx.Done()
	return errors.New("ended by a signal")
}

// startThreads makes the runtime own n idle threads. It crashes when the kernel
// refuses it a new one, as it does at the limit (clone fails with ENOMEM).
func startThreads(n int) {
	var started, done sync.WaitGroup
	started.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			started.Wait()
		})
	}
	done.Wait()
}

func endOfHold(ctx context.Context, o *options) error {
	if o.free || o.hold == 0 {
		return nil
	}
	return sleep(ctx, o.hold)
}

// startChildren starts the further processes of the run; the function that it
// returns waits for them.
func startChildren(o *options, args []string, p *progress.Writer, say func(string, ...any)) (wait func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start children: %w", err)
	}
	var started []*os.Process
	for range o.children {
		child, err := os.StartProcess(self, append([]string{os.Args[0], "--child"}, args...),
			&os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}, Env: os.Environ(), Sys: dieWithParent()})
		if err != nil {
			var errno unix.Errno
			errors.As(err, &errno)
			p.Failed("fork", errno)
			say("error fork: %v", err)
			continue
		}
		started = append(started, child)
	}
	return func() error {
		var errs []error
		for _, c := range started {
			state, err := c.Wait()
			if err == nil && !state.Success() {
				err = fmt.Errorf("child %d: %s", c.Pid, state)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, nil
}

// sayer writes lines in one write each, from any thread.
func sayer(w io.Writer) func(string, ...any) {
	var mu sync.Mutex
	start := time.Now()
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, "memleak: pid=%d after=%s "+format+"\n",
			append([]any{os.Getpid(), time.Since(start).Round(time.Millisecond)}, args...)...)
	}
}

func (o *options) describe() string {
	parts := []string{fmt.Sprintf("pid=%d kind=%s rate=%s block=%s threads=%d children=%d touch=%g ceiling=%s",
		os.Getpid(), o.kind, &o.rate, o.block, o.threads, o.children, o.touch, o.ceiling)}
	for _, c := range o.cgroups {
		parts = append(parts, "cgroup="+c)
	}
	return strings.Join(parts, " ")
}
