package action

import (
	"context"

	"github.com/arbiterd/arbiter/policy"
)

type Snapshot struct{ policy.SnapshotOptions }

var _ Action = Snapshot{}

func newSnapshot(o policy.SnapshotOptions) Snapshot { return Snapshot{o} }

func (s Snapshot) Run(ctx context.Context, env Env) (Result, error) { return Result{}, nil }
