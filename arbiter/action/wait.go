package action

import (
	"context"
	"fmt"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// Wait waits for a time, or until usage falls.
type Wait struct{ policy.WaitOptions }

var _ Action = Wait{}

func newWait(o policy.WaitOptions) Wait { return Wait{o} }

// lookEvery is how often usage is read: the kernel has no event for memory
// that is given back.
const lookEvery = 250 * time.Millisecond

// Run ends at the end of the time, or early once the memory that cannot be
// reclaimed is under UsageUnder. If it never is, that is a failure.
func (w Wait) Run(ctx context.Context, env Env) (Result, error) {
	began := time.Now()
	end := time.NewTimer(w.For)
	defer end.Stop()
	if w.UsageUnder.IsZero() {
		select {
		case <-ctx.Done():
			return Result{}, fmt.Errorf("wait: %w", ctx.Err())
		case <-end.C:
			return Result{Summary: "waited " + w.For.String()}, nil
		}
	}
	under, err := sizeOf(w.UsageUnder, env)
	if err != nil {
		return Result{}, fmt.Errorf("wait: usage-under: %w", err)
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		u, err := env.Cgroup.Usage()
		if err != nil {
			return Result{}, fmt.Errorf("wait: %w", err)
		}
		res := Result{
			Summary: fmt.Sprintf("usage %s after %s", mib(u.Unreclaimable), time.Since(began).Round(time.Millisecond)),
			Details: map[string]string{"usageBytes": fmt.Sprint(u.Unreclaimable), "underBytes": fmt.Sprint(under)},
		}
		if u.Unreclaimable < under {
			return res, nil
		}
		select {
		case <-ctx.Done():
			return res, fmt.Errorf("wait: %w", ctx.Err())
		case <-end.C:
			return res, fmt.Errorf("wait: usage is %s after %s, not under %s", mib(u.Unreclaimable), w.For, mib(under))
		case <-look.C:
		}
	}
}
