package action

import (
	"context"
	"errors"
	"fmt"

	"github.com/arbiterd/arbiter/policy"
)

// Raise lends the container room above its limit until the case closes.
type Raise struct{ policy.RaiseOptions }

var _ Action = Raise{}

func newRaise(o policy.RaiseOptions) Raise { return Raise{o} }

// Run borrows within the budgets; over them it fails and nothing is lent.
func (r Raise) Run(ctx context.Context, env Env) (Result, error) {
	bytes, err := sizeOf(r.By, env)
	if err != nil {
		return Result{}, fmt.Errorf("raise: %w", err)
	}
	if err := env.Borrow(ctx, bytes); err != nil {
		return Result{}, fmt.Errorf("raise by %s: %w", mib(bytes), err)
	}
	return Result{
		Summary: "raised by " + mib(bytes) + " until the case closes",
		Details: map[string]string{"raisedBytes": fmt.Sprint(bytes)},
	}, nil
}

// sizeOf is a policy's size in bytes for this container.
func sizeOf(s policy.Size, env Env) (uint64, error) {
	limit, ok := env.Facts.Limit.Bytes()
	if s.Percent > 0 && !ok {
		return 0, errors.New("the container has no limit to take a share of")
	}
	return s.Of(limit), nil
}

// mib writes bytes for people.
func mib(bytes uint64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
