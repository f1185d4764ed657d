package action

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// core takes a core of a process that has no dump of its own, or could not
// give it. The container is frozen again where it ran for the dump that
// failed; the case's own freeze then finds it done.
func (a HeapDump) core(ctx context.Context, env Env, rt proc.Runtime, pid int, why error) (Result, error) {
	if a.Needs() != policy.Frozen {
		if err := env.Cgroup.Freeze(ctx); err != nil {
			return Result{}, errors.Join(why, err)
		}
	}
	made := &recorder{Artifacts: env.Artifacts}
	env.Artifacts = made
	env.Facts.Runtime = string(rt) // for the command that opens the core
	res, err := a.Core.Run(ctx, env)
	if res.Details == nil {
		res.Details = map[string]string{}
	}
	res.Details["runtime"] = string(rt)
	if a.Via != "core" {
		res.Details["core-because"] = why.Error()
		res.Summary = fmt.Sprintf("core, because %s; %s", printable(why.Error(), 300), res.Summary)
	}
	if err != nil {
		return res, errors.Join(why, err)
	}
	if core := made.core(pid); rt == proc.JVM && core != "" {
		a.convertLater(ctx, env, pid, core, &res)
	}
	return res, nil
}

// convertLater has the JVM's core made into a heap dump once the verdict was
// carried out, and before the core is compressed. The JVM's binaries are kept
// now: they go with the container. A core without them is still a result.
func (a HeapDump) convertLater(ctx context.Context, env Env, pid int, core string, res *Result) {
	bundle, err := keepBinaries(ctx, env, pid)
	if err != nil {
		res.Details["convert-missing"] = err.Error()
		return
	}
	res.Details["convert"] = fmt.Sprintf("arbiterctl convert %s --binaries %s", quote(core), quote(bundle))
	convert := func(ctx context.Context) (string, error) {
		out := a.newDumpFile(env, pid)
		_, err := jvm.Convert(ctx, jvm.Conversion{Core: core, Binaries: bundle}, out)
		if err := out.end(err); err != nil {
			return "", fmt.Errorf("make a heap dump of the core: %w", err)
		}
		return "the core was made into a heap dump", nil
	}
	res.After = append([]Work{convert}, res.After...)
}

// keepBinaries writes the artifact that a core needs to be converted.
func keepBinaries(ctx context.Context, env Env, pid int) (string, error) {
	artifact, err := env.Artifacts.Create(fmt.Sprintf("binaries.%d.tar.zst", pid))
	if err != nil {
		return "", err
	}
	if err := jvm.KeepBinaries(ctx, env.Proc, pid, artifact); err != nil {
		artifact.Abort(err)
		return "", err
	}
	if err := artifact.Close(); err != nil {
		return "", err
	}
	return artifact.File().Name(), nil
}

// A recorder notes what artifacts an action made.
type recorder struct {
	Artifacts
	mu   sync.Mutex
	made map[string]Artifact
}

func (r *recorder) Create(name string) (Artifact, error) {
	a, err := r.Artifacts.Create(name)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.made == nil {
			r.made = map[string]Artifact{}
		}
		r.made[name] = a
	}
	return a, err
}

// core is the path of a process' core, or "".
func (r *recorder) core(pid int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, a := range r.made {
		if strings.HasPrefix(name, fmt.Sprintf("core.%d.", pid)) {
			return a.File().Name()
		}
	}
	return ""
}
