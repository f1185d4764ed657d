package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// NodeReport writes Node's diagnostic report: stacks, heap spaces, handles,
// libraries. It takes some 50 ms; a heap snapshot takes 7 to 8 times the heap
// in memory, and minutes.
type NodeReport struct{ policy.NodeReportOptions }

var _ Action = NodeReport{}

func newNodeReport(o policy.NodeReportOptions) NodeReport { return NodeReport{o} }

// Run asks the container's largest Node process.
func (a NodeReport) Run(ctx context.Context, env Env) (Result, error) {
	_, pid, err := runtimeTarget(ctx, env, string(proc.Node))
	if err != nil {
		return Result{}, fmt.Errorf("node-report: %w", err)
	}
	res, err := a.run(ctx, env, pid)
	if err != nil {
		return res, fmt.Errorf("node-report: %w", err)
	}
	return res, nil
}

func (a NodeReport) run(ctx context.Context, env Env, pid int) (res Result, err error) {
	lent, err := elastic(ctx, env, func(ctx context.Context) error {
		i, err := openInspector(ctx, env, pid)
		if err != nil {
			return err
		}
		defer i.close()
		if res, err = a.report(env, pid, i); err != nil || !a.Snapshot {
			return err
		}
		return a.snapshot(env, pid, i)
	})
	if res.Details == nil {
		res.Details = map[string]string{}
	}
	res.Details["lent-bytes"] = fmt.Sprint(lent)
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return res, err
}

// report fetches the report without its environment variables, which hold
// passwords more often than answers.
func (a NodeReport) report(env Env, pid int, i *inspector) (Result, error) {
	text, err := i.evaluate("JSON.stringify(process.report.getReport())")
	if err != nil {
		return Result{}, err
	}
	var report map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return Result{}, fmt.Errorf("parse the report: %w", err)
	}
	delete(report, "environmentVariables")
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return Result{}, err
	}
	var heap struct {
		Used  uint64 `json:"usedMemory"`
		Limit uint64 `json:"memoryLimit"`
	}
	// What the program says about itself is a detail: without it, the report
	// is still one.
	_ = json.Unmarshal(report["javascriptHeap"], &heap)
	name := fmt.Sprintf("node-report.%d.json", pid)
	return Result{
		Summary: fmt.Sprintf("report of node process %d, %s of JavaScript heap used", pid, policy.FormatBytes(heap.Used)),
		Details: map[string]string{
			"runtime": "node", "pid": fmt.Sprint(pid),
			"heap-used-bytes": fmt.Sprint(heap.Used), "heap-limit-bytes": fmt.Sprint(heap.Limit),
		},
	}, keep(env, name, b)
}

// snapshot streams a heap snapshot into an artifact.
func (a NodeReport) snapshot(env Env, pid int, i *inspector) error {
	artifact, err := env.Artifacts.Create(fmt.Sprintf("heap.%d.heapsnapshot.zst", pid))
	if err != nil {
		return err
	}
	if err := a.takeSnapshot(env, i, artifact); err != nil {
		artifact.Abort(err)
		return err
	}
	return artifact.Close()
}

func (a NodeReport) takeSnapshot(env Env, i *inspector, to Artifact) error {
	z, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	written, limit := uint64(0), maxDump(env)
	_, err = i.call("HeapProfiler.takeHeapSnapshot", map[string]any{}, func(m message) error {
		if m.Method != "HeapProfiler.addHeapSnapshotChunk" {
			return nil
		}
		var p struct {
			Chunk string `json:"chunk"`
		}
		if err := json.Unmarshal(m.Params, &p); err != nil {
			return err
		}
		if written += uint64(len(p.Chunk)); written > limit {
			return fmt.Errorf("the snapshot is over %d bytes", limit)
		}
		env.Progress(written, 0)
		_, err := z.Write([]byte(p.Chunk))
		return err
	})
	return errors.Join(err, z.Close())
}
