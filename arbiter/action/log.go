package action

import (
	"context"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/policy"
)

// Log writes one line to the daemon's log.
type Log struct{ policy.LogOptions }

var _ Action = Log{}

func newLog(o policy.LogOptions) Log { return Log{o} }

// Run writes the message with everything that identifies the case.
func (l Log) Run(_ context.Context, env Env) (Result, error) {
	level := hclog.LevelFromString(l.Level)
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	env.Log.With(identity(env)...).Log(level, "rule says", "message", l.Message)
	return Result{Summary: l.Message}, nil
}

// identity is a case's identity as the log's keys. With replaces those that
// the logger has already.
func identity(env Env) []any {
	f := env.Facts
	kv := []any{"case", env.Case, "container", f.Container.Name, "pod", f.Container.Pod.Name,
		"namespace", f.Container.Pod.Namespace, "cgroup", f.Container.Cgroup, "rule", ruleName(env),
		"trigger", string(f.Trigger), "usage_bytes", f.UsageBytes}
	if limit, ok := f.Limit.Bytes(); ok {
		kv = append(kv, "limit_bytes", limit)
	}
	return kv
}

func ruleName(env Env) string {
	if env.Rule == nil {
		return ""
	}
	return env.Rule.Name
}
