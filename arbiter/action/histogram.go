package action

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// ClassHistogram counts a JVM's objects by class, and tells what its memory
// outside of the heap is used for.
type ClassHistogram struct{ policy.ClassHistogramOptions }

var _ Action = ClassHistogram{}

func newClassHistogram(o policy.ClassHistogramOptions) ClassHistogram { return ClassHistogram{o} }

// Run asks the container's largest JVM.
func (a ClassHistogram) Run(ctx context.Context, env Env) (Result, error) {
	_, pid, err := runtimeTarget(ctx, env, string(proc.JVM))
	if err != nil {
		return Result{}, fmt.Errorf("class-histogram: %w", err)
	}
	var res Result
	lent, err := elastic(ctx, env, func(ctx context.Context) error {
		j, err := jvm.Open(ctx, env.Proc, pid)
		if err != nil {
			return err
		}
		defer j.Close()
		res, err = a.run(ctx, env, j)
		return err
	})
	if err != nil {
		return res, fmt.Errorf("class-histogram: %w", err)
	}
	res.Details["lent-bytes"] = fmt.Sprint(lent)
	return res, nil
}

func (a ClassHistogram) run(ctx context.Context, env Env, j *jvm.JVM) (Result, error) {
	classes, err := jvm.ClassHistogram(ctx, j, a.Live)
	if err != nil {
		return Result{}, err
	}
	res := Result{
		Summary: fmt.Sprintf("classes of jvm %d, most bytes: %s", j.Pid(), topClass(classes)),
		Details: map[string]string{"runtime": "jvm", "pid": fmt.Sprint(j.Pid())},
	}
	if err := keep(env, fmt.Sprintf("classes.%d.txt", j.Pid()), classes); err != nil {
		return res, err
	}
	native, err := jvm.NativeMemory(ctx, env.Proc, j)
	if ctx.Err() != nil || errors.Is(err, proc.ErrGone) {
		return res, err
	}
	if err != nil {
		res.Details["native-memory-missing"] = err.Error()
		return res, nil
	}
	for _, p := range native.Parts {
		res.Details[strings.ReplaceAll(p.Name, " ", "-")+"-bytes"] = fmt.Sprint(p.Resident + p.Swap)
	}
	return res, keep(env, fmt.Sprintf("native-memory.%d.txt", j.Pid()), native.Text())
}

// histogramLine matches "   1:          6713       41943456  [B (java.base@17)".
var histogramLine = regexp.MustCompile(`(?m)^\s*1:\s+(\d+)\s+(\d+)\s+(\S+)`)

func topClass(histogram []byte) string {
	m := histogramLine.FindSubmatch(histogram)
	if m == nil {
		return "unknown"
	}
	return printable(fmt.Sprintf("%s (%s instances, %s bytes)", m[3], m[1], m[2]), 200)
}
