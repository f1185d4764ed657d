package action

import (
	"context"
	"fmt"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

// runtimeTarget is the process that a runtime's dump is wanted of: the largest
// of the container, or of those of the runtime asked for.
func runtimeTarget(ctx context.Context, env Env, want string) (proc.Runtime, int, error) {
	pids, err := env.Cgroup.Pids()
	if err != nil {
		return "", 0, err
	}
	if want == "" || want == "auto" {
		return proc.DetectContainer(ctx, env.Proc, pids)
	}
	pid, err := proc.FindRuntime(ctx, env.Proc, pids, proc.Runtime(want))
	return proc.Runtime(want), pid, err
}

// keep writes a small artifact.
func keep(env Env, name string, content []byte) error {
	a, err := env.Artifacts.Create(name)
	if err != nil {
		return err
	}
	if _, err := a.Write(content); err != nil {
		a.Abort(err)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return a.Close()
}
