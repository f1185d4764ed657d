package action

import (
	"context"
	"fmt"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/policy"
)

// Reclaim makes the kernel give page cache and reclaimable memory back.
type Reclaim struct{ policy.ReclaimOptions }

var _ Action = Reclaim{}

func newReclaim(o policy.ReclaimOptions) Reclaim { return Reclaim{o} }

// A Reclaimer is a cgroup whose memory the kernel gives back on request.
type Reclaimer interface {
	// Reclaim asks for bytes, 0 for all that can be had, and returns how far
	// usage fell. It returns when ctx is done, although the kernel may go on.
	Reclaim(ctx context.Context, bytes uint64) (reclaimed uint64, err error)
}

// Run reclaims. Where an amount was asked for and nothing at all came back,
// that is a failure; a part of it is not.
func (r Reclaim) Run(ctx context.Context, env Env) (Result, error) {
	amount, err := sizeOf(r.Amount, env)
	if err != nil {
		return Result{}, fmt.Errorf("reclaim: amount: %w", err)
	}
	rc, ok := env.Cgroup.(Reclaimer)
	if !ok {
		return Result{}, fmt.Errorf("reclaim: %w", cgroup.ErrNotSupported)
	}
	got, err := rc.Reclaim(ctx, amount)
	res := Result{
		Summary: "reclaimed " + mib(got),
		Details: map[string]string{"reclaimedBytes": fmt.Sprint(got)},
	}
	if u, err := env.Cgroup.Usage(); err == nil {
		res.Summary += ", usage is " + mib(u.Current)
		res.Details["usageBytes"] = fmt.Sprint(u.Current)
	}
	if err != nil {
		return res, fmt.Errorf("reclaim: %w", err)
	}
	if got == 0 && amount > 0 {
		return res, fmt.Errorf("reclaim: nothing of %s came back", mib(amount))
	}
	return res, nil
}
