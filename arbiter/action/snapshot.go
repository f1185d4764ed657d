package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// Snapshot writes down why the memory is used up: snapshot.txt for people,
// snapshot.json for tools. It reads what a stuck process cannot block first,
// and abandons the rest at a deadline. It holds no memory contents and no
// environment variables; what processes say of themselves is escaped and cut.
type Snapshot struct {
	policy.SnapshotOptions
	kernelLog string // /dev/kmsg
}

var _ Action = Snapshot{}

func newSnapshot(o policy.SnapshotOptions) Snapshot { return Snapshot{o, "/dev/kmsg"} }

// slack is what of the step's time is left for writing the files.
const slack = time.Second

// Run collects and writes. What could not be read is listed in both files; it
// is no failure.
func (s Snapshot) Run(ctx context.Context, env Env) (Result, error) {
	r := s.collect(ctx, env)
	res := Result{Summary: r.Answer, Details: map[string]string{
		"processes":  strconv.Itoa(r.ProcessCount),
		"usageBytes": strconv.FormatUint(r.UsageBytes, 10),
		"missing":    strconv.Itoa(len(r.Missing)),
	}}
	err := errors.Join(
		writeArtifact(env.Artifacts, "snapshot.json", func(w io.Writer) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(r)
		}),
		writeArtifact(env.Artifacts, "snapshot.txt", r.writeText),
	)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return res, fmt.Errorf("snapshot: %w", err)
	}
	return res, nil
}

// collect keeps some time for the files even where reads hang.
func (s Snapshot) collect(ctx context.Context, env Env) *report {
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left-min(slack, left/2))
		defer cancel()
	}
	c := &collector{env: env, began: time.Now()}
	return c.run(ctx, s.kernelLog)
}

func writeArtifact(a Artifacts, name string, write func(io.Writer) error) error {
	f, err := a.Create(name)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	if err := write(f); err != nil {
		f.Abort(err)
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", name, err)
	}
	return nil
}
