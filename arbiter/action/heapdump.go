package action

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

// HeapDump writes what a runtime can tell of its heap: a JVM's HPROF dump, a
// Go program's heap profile, a Node report; of any other a core.
type HeapDump struct {
	policy.HeapDumpOptions
	Core CoreDump // takes the core where there is no other way
}

var _ Action = HeapDump{}

func newHeapDump(o policy.HeapDumpOptions) HeapDump {
	core := policy.CoreDumpOptions{Process: "largest", Filter: coreFilter, Compress: true, MaxSize: o.MaxSize}
	return HeapDump{HeapDumpOptions: o, Core: newCoreDump(core)}
}

// coreFilter is core-dump's default: anonymous and shared memory, ELF headers
// and huge pages.
const coreFilter = 0x33

// errNoDump says that a runtime has no dump of its own.
var errNoDump = errors.New("no heap dump")

// Run dumps the container's largest process, or the largest of the runtime
// asked for. Where the runtime's own way is closed it takes a core instead,
// unless the policy named the way.
func (a HeapDump) Run(ctx context.Context, env Env) (Result, error) {
	rt, pid, err := runtimeTarget(ctx, env, a.Runtime)
	if err != nil {
		return Result{}, fmt.Errorf("heap-dump: %w", err)
	}
	res, err := a.dump(ctx, env, rt, pid)
	if a.wantsCore(ctx, err) {
		res, err = a.core(ctx, env, rt, pid, err)
	}
	if err != nil {
		return res, fmt.Errorf("heap-dump: %w", err)
	}
	return res, nil
}

// wantsCore tells whether a failure is one that a core makes good.
func (a HeapDump) wantsCore(ctx context.Context, err error) bool {
	if ctx.Err() != nil || a.Via != "" && a.Via != "auto" {
		return errors.Is(err, errNoDump)
	}
	return errors.Is(err, errNoDump) || errors.Is(err, errNoPprof) || errors.Is(err, jvm.ErrTakeCore) || errors.Is(err, jvm.ErrBadDump)
}

func (a HeapDump) dump(ctx context.Context, env Env, rt proc.Runtime, pid int) (Result, error) {
	switch {
	case a.Via == "core":
		return Result{}, fmt.Errorf("%w wanted from the process itself", errNoDump)
	case rt == proc.JVM:
		return a.jvm(ctx, env, pid)
	case rt == proc.Go:
		return goHeap(ctx, env, pid)
	case rt == proc.Node:
		return NodeReport{}.run(ctx, env, pid)
	}
	return Result{}, fmt.Errorf("%w: %s has none of its own", errNoDump, rt)
}

// goHeap fetches the heap profile. It tells of sampled allocations and needs
// no more room than its own size.
func goHeap(ctx context.Context, env Env, pid int) (Result, error) {
	p, err := findPprof(ctx, env, pid)
	if err != nil {
		return Result{}, err
	}
	b, err := p.get(ctx, "heap")
	if err != nil {
		return Result{}, err
	}
	name := profileFile("heap", pid, b)
	return Result{
		Summary: fmt.Sprintf("heap profile of go process %d, %s", pid, policy.FormatBytes(uint64(len(b)))),
		Details: map[string]string{"runtime": "go", "pid": fmt.Sprint(pid), "from": p.String(), "open": "go tool pprof " + name},
	}, keep(env, name, b)
}

func (a HeapDump) jvm(ctx context.Context, env Env, pid int) (res Result, err error) {
	var dump jvm.Dump
	var size uint64
	lent, err := elastic(ctx, env, func(ctx context.Context) error {
		j, err := jvm.Open(ctx, env.Proc, pid)
		if err != nil {
			return err
		}
		defer j.Close()
		c, err := a.commander(ctx, env, j)
		if err != nil {
			return err
		}
		dump, size, err = a.write(ctx, env, j, c)
		return err
	})
	res.Details = map[string]string{"runtime": "jvm", "pid": fmt.Sprint(pid), "lent-bytes": fmt.Sprint(lent)}
	if err != nil {
		return res, err
	}
	describeHeap(&res, dump, size)
	return res, nil
}

// commander is who carries the command to the JVM.
func (a HeapDump) commander(ctx context.Context, env Env, j *jvm.JVM) (jvm.Commander, error) {
	if a.Via != "jcmd" {
		return j, nil
	}
	return j.Jcmd(ctx, jvm.ExecIn(env.ExecIn))
}

// write streams the dump into an artifact and tells its compressed size.
func (a HeapDump) write(ctx context.Context, env Env, j *jvm.JVM, c jvm.Commander) (jvm.Dump, uint64, error) {
	out := a.newDumpFile(env, j.Pid())
	dump, err := jvm.HeapDump(ctx, j, c, jvm.DumpOptions{
		Live: a.Live, MaxBytes: maxDump(env), Progress: env.Progress,
	}, out)
	return dump, out.written, out.end(err)
}

// maxDump bounds a dump before compression. References take 8 bytes in it
// where the heap has 4, and every object 25 bytes of its own: a true dump is
// at most some three times its heap, which cannot be much over the limit.
func maxDump(env Env) uint64 {
	limit, ok := env.Facts.Limit.Bytes()
	if !ok {
		limit = max(env.Facts.UsageBytes, 64<<30)
	}
	return 4*limit + 1<<30
}

// A dumpFile is an artifact as package jvm writes it: in order, but for a gap
// that is filled at the end. It is created by the first byte: a JVM that gives
// no dump leaves no file.
type dumpFile struct {
	env          Env
	name         string
	max, written uint64
	artifact     Artifact
}

var errMaxSize = errors.New("the dump is larger than max-size")

func (a HeapDump) newDumpFile(env Env, pid int) *dumpFile {
	return &dumpFile{env: env, name: fmt.Sprintf("heap.%d.hprof.zst", pid), max: a.MaxSize.Bytes}
}

func (f *dumpFile) open() (err error) {
	if f.artifact == nil {
		f.artifact, err = f.env.Artifacts.Create(f.name)
	}
	return err
}

func (f *dumpFile) Write(p []byte) (int, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	f.written += uint64(len(p))
	if f.max > 0 && f.written > f.max {
		return 0, fmt.Errorf("%w of %s", errMaxSize, policy.FormatBytes(f.max))
	}
	return f.artifact.Write(p)
}

func (f *dumpFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	return f.artifact.File().WriteAt(p, off)
}

func (f *dumpFile) Seek(offset int64, whence int) (int64, error) {
	if err := f.open(); err != nil {
		return 0, err
	}
	return f.artifact.File().Seek(offset, whence)
}

// end gives the artifact its name, or leaves it half written and says why.
func (f *dumpFile) end(err error) error {
	switch {
	case f.artifact == nil:
		return err
	case err != nil:
		f.artifact.Abort(err)
		return err
	}
	return f.artifact.Close()
}

func describeHeap(res *Result, d jvm.Dump, size uint64) {
	var top []string
	for _, c := range d.Classes[:min(5, len(d.Classes))] {
		top = append(top, fmt.Sprintf("%s %s (%d)", printable(c.Name, 200), policy.FormatBytes(c.Bytes), c.Instances))
	}
	res.Details["jdk"] = fmt.Sprint(d.JDK)
	res.Details["via"] = d.Via
	res.Details["dump-bytes"] = fmt.Sprint(d.Bytes)
	res.Details["file-bytes"] = fmt.Sprint(size)
	res.Details["objects"] = fmt.Sprint(d.Objects)
	res.Details["top-classes"] = strings.Join(top, ", ")
	res.Details["open"] = "zstd -d, then any HPROF viewer: Eclipse MAT, VisualVM"
	res.Summary = fmt.Sprintf("heap dump of jvm, %s, %d objects", policy.FormatBytes(d.Bytes), d.Objects)
	if len(top) > 0 {
		res.Summary += ", most bytes: " + top[0]
	}
}
