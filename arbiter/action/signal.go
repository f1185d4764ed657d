package action

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// Signal sends a signal to processes of the container.
type Signal struct{ policy.SignalOptions }

var _ Action = Signal{}

func newSignal(o policy.SignalOptions) Signal { return Signal{o} }

// Run sends through pidfds, so that a reused pid is never hit. A frozen
// process gets its signal when it is thawed; SIGKILL too, on v1.
func (s Signal) Run(ctx context.Context, env Env) (Result, error) {
	sig := unix.SignalNum(s.Signal)
	if sig == 0 {
		return Result{}, fmt.Errorf("signal: no signal %q", s.Signal)
	}
	targets, err := selectProcesses(ctx, env, s.Process)
	if err != nil {
		return Result{}, fmt.Errorf("signal %s: %w", s.Signal, err)
	}
	defer closeAll(targets)
	var sent []string
	var errs []error
	for _, t := range targets {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		switch err := t.Signal(sig); {
		case errors.Is(err, proc.ErrGone): // it ended by itself
		case err != nil:
			errs = append(errs, err)
		default:
			sent = append(sent, fmt.Sprintf("%d (%s)", t.Pid, printable(t.comm, 16)))
		}
	}
	res := Result{Summary: s.summary(sent, env)}
	if err := errors.Join(errs...); err != nil {
		return res, fmt.Errorf("signal %s: %w", s.Signal, err)
	}
	if len(sent) == 0 {
		return res, fmt.Errorf("signal %s: %w", s.Signal, proc.ErrGone)
	}
	return res, nil
}

func (s Signal) summary(sent []string, env Env) string {
	const shown = 5
	to := strings.Join(sent[:min(len(sent), shown)], ", ")
	if more := len(sent) - shown; more > 0 {
		to += fmt.Sprintf(" and %d more", more)
	}
	text := fmt.Sprintf("%s sent to %s", s.Signal, to)
	if env.Cgroup.Status().State == cgroup.HeldNow {
		text += "; the container is frozen: delivered at the thaw"
	}
	return text
}
