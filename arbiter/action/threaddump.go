package action

import (
	"bytes"
	"context"
	"fmt"

	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// ThreadDump writes the stacks of every thread of a JVM, or of every goroutine
// of a Go program that serves pprof.
type ThreadDump struct{ policy.ThreadDumpOptions }

var _ Action = ThreadDump{}

func newThreadDump(o policy.ThreadDumpOptions) ThreadDump { return ThreadDump{o} }

// Run asks the largest process of the container.
func (a ThreadDump) Run(ctx context.Context, env Env) (Result, error) {
	rt, pid, err := runtimeTarget(ctx, env, "auto")
	if err != nil {
		return Result{}, fmt.Errorf("thread-dump: %w", err)
	}
	var res Result
	switch rt {
	case proc.JVM:
		res, err = a.jvm(ctx, env, pid)
	case proc.Go:
		res, err = goroutines(ctx, env, pid)
	case proc.Node:
		err = fmt.Errorf("process %d is %s: use node-report", pid, rt)
	default:
		err = fmt.Errorf("process %d is %s, which dumps no threads: use core-dump", pid, rt)
	}
	if err != nil {
		return res, fmt.Errorf("thread-dump: %w", err)
	}
	return res, nil
}

func (a ThreadDump) jvm(ctx context.Context, env Env, pid int) (res Result, err error) {
	_, err = elastic(ctx, env, func(ctx context.Context) error {
		j, err := jvm.Open(ctx, env.Proc, pid)
		if err != nil {
			return err
		}
		defer j.Close()
		threads, err := jvm.ThreadDump(ctx, j, a.Locks)
		if err != nil {
			return err
		}
		// A thread's paragraph begins with its name in quotes.
		n := bytes.Count(threads, []byte("\n\""))
		res = Result{
			Summary: fmt.Sprintf("%d threads of jvm %d", n, pid),
			Details: map[string]string{"runtime": "jvm", "pid": fmt.Sprint(pid), "threads": fmt.Sprint(n)},
		}
		return keep(env, fmt.Sprintf("threads.%d.txt", pid), threads)
	})
	return res, err
}

// goroutines fetches every stack from a Go program's own pprof handler.
func goroutines(ctx context.Context, env Env, pid int) (Result, error) {
	p, err := findPprof(ctx, env, pid)
	if err != nil {
		return Result{}, fmt.Errorf("%w (as a kill step, the action signal with SIGQUIT makes it print them and exit)", err)
	}
	stacks, err := p.get(ctx, "goroutine?debug=2")
	if err != nil {
		return Result{}, err
	}
	n := bytes.Count(append([]byte("\n"), stacks...), []byte("\ngoroutine "))
	return Result{
		Summary: fmt.Sprintf("stacks of %d goroutines of go process %d", n, pid),
		Details: map[string]string{"runtime": "go", "pid": fmt.Sprint(pid), "from": p.String()},
	}, keep(env, fmt.Sprintf("goroutines.%d.txt", pid), stacks)
}
