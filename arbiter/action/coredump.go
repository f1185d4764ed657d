package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/dump"
	"github.com/arbiterd/arbiter/policy"
)

// CoreDump writes ELF cores of processes that stand still. All processes of
// the container are stopped before the first core is begun.
type CoreDump struct {
	policy.CoreDumpOptions
	Helper dump.Helper // the zero value runs this program's `dump`
}

var _ Action = CoreDump{}

func newCoreDump(o policy.CoreDumpOptions) CoreDump { return CoreDump{CoreDumpOptions: o} }

// Run dumps the chosen processes into one artifact each. A core that a bound
// cut short is kept, and the summary and details tell what it lacks; only a
// core that is of no use is an error.
func (a CoreDump) Run(ctx context.Context, env Env) (Result, error) {
	choose, err := chooser(a.Process)
	if err != nil {
		return Result{}, fmt.Errorf("core-dump: %w", err)
	}
	all, err := openProcesses(ctx, env)
	if err != nil {
		return Result{}, fmt.Errorf("core-dump: %w", err)
	}
	defer closeAll(all)
	var chosen []target
	if len(all) > 0 {
		chosen = choose(all)
	}
	if len(chosen) == 0 {
		return Result{}, fmt.Errorf("core-dump: no process %s among %d", a.Process, len(all))
	}
	cores, err := createCores(env, chosen)
	if err != nil {
		return Result{}, fmt.Errorf("core-dump: %w", err)
	}
	report, err := a.dump(ctx, env, all, cores)
	res, err := a.finish(env, cores, report, err)
	if err != nil {
		return res, fmt.Errorf("core-dump: %w", err)
	}
	return res, nil
}

// A coreFile is the artifact that one process' core goes to.
type coreFile struct {
	target
	artifact Artifact
	file     *os.File // a descriptor of its own, for the helper
}

func createCores(env Env, chosen []target) (cores []coreFile, err error) {
	for _, t := range chosen {
		var c coreFile
		if c, err = createCore(env, t); err != nil {
			for _, c := range cores {
				c.file.Close()
				c.artifact.Abort(err)
			}
			return nil, err
		}
		cores = append(cores, c)
	}
	return cores, nil
}

func createCore(env Env, t target) (coreFile, error) {
	name := fmt.Sprintf("core.%d.%s.elf", t.Pid, fileName(t.comm))
	artifact, err := env.Artifacts.Create(name)
	if err != nil {
		return coreFile{}, err
	}
	fd, err := unix.FcntlInt(artifact.File().Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		err = fmt.Errorf("duplicate descriptor of %s: %w", name, err)
		artifact.Abort(err)
		return coreFile{}, err
	}
	return coreFile{t, artifact, os.NewFile(uintptr(fd), name)}, nil
}

// fileName is what a process calls itself as a part of a file's name.
func fileName(comm string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, comm)
}

// dump runs the helper while the container is protected from what the reading
// of its memory may charge to it.
func (a CoreDump) dump(ctx context.Context, env Env, all []target, cores []coreFile) (report dump.Report, err error) {
	req := dump.Request{Filter: a.Filter}
	for _, t := range all {
		req.Held = append(req.Held, dump.Process{Pid: t.Pid, Start: t.Start})
	}
	var files []*os.File
	for _, c := range cores {
		req.Targets = append(req.Targets, dump.Target{Pid: c.Pid})
		files = append(files, c.file)
		defer c.file.Close()
	}
	if err := a.bounds(&req, env, cores[0]); err != nil {
		return report, err
	}
	var noRoom string
	if noRoom = roomForSwap(ctx, env); noRoom != "" {
		req.SkipSwapped = true
	}
	err = env.Cgroup.Guarded(ctx, func() error {
		report, err = a.Helper.Dump(ctx, req, files, holdOf(env.Cgroup), env.Progress)
		return err
	})
	if noRoom != "" {
		report.Missing = append(report.Missing, noRoom)
	}
	return report, err
}

// holdOf is how the container's threads get into their traps.
func holdOf(cg cgroup.Cgroup) dump.Hold {
	hold := dump.Hold{Pids: cg.Pids}
	if t, ok := cg.(cgroup.Trapper); ok {
		hold.Trap = t.Trapped
	}
	return hold
}

// roomer is an artifact that knows how much it may still grow.
type roomer interface{ Room() (int64, error) }

// bounds tells the helper what it may write: it writes behind the back of the
// artifact, which would otherwise count.
func (a CoreDump) bounds(req *dump.Request, env Env, c coreFile) error {
	limit, _ := env.Facts.Limit.Bytes()
	req.MaxBytes = a.MaxSize.Of(limit)
	r, ok := c.artifact.File().(roomer)
	if !ok {
		return nil
	}
	room, err := r.Room()
	if err != nil {
		return err
	}
	if room <= 0 {
		return errors.New("no room for artifacts: the case's or the casebook's budget is used up, or the disk is at its floor")
	}
	if req.MaxBytes == 0 || uint64(room) < req.MaxBytes {
		req.MaxBytes = uint64(room)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(c.file.Fd()), &st); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	// Others write to the same disk meanwhile.
	req.MinFree = st.Bavail*uint64(st.Bsize) - min(uint64(room), st.Bavail*uint64(st.Bsize))
	return nil
}

// swapMargin is room for what else may be charged while swap is read.
const swapMargin = 4 << 20

// roomForSwap borrows what the container's swapped pages need: to read one is
// to bring it back, charged to the very cgroup. It returns why there is no
// room, or "".
func roomForSwap(ctx context.Context, env Env) string {
	u, err := env.Cgroup.Usage()
	if err != nil || u.Swap == 0 {
		return ""
	}
	limit, limited := u.Limit.Bytes()
	need := u.Current + u.Swap + swapMargin
	if !limited || need <= limit {
		return ""
	}
	if env.Borrow == nil {
		return fmt.Sprintf("%d bytes in swap: nothing can be borrowed", u.Swap)
	}
	if err := env.Borrow(ctx, env.Cgroup.Status().Borrowed+need-limit); err != nil {
		return fmt.Sprintf("%d bytes in swap: %v", u.Swap, err)
	}
	return ""
}

// finish names the artifacts that are of use and words what became of them.
func (a CoreDump) finish(env Env, cores []coreFile, report dump.Report, err error) (Result, error) {
	res := Result{Details: map[string]string{}}
	var parts []string
	errs := []error{err}
	for i, c := range cores {
		if err != nil {
			c.artifact.Abort(err)
			continue
		}
		core := report.Cores[i]
		if core.Error != "" {
			cerr := fmt.Errorf("process %d (%s): %s", c.Pid, printable(c.comm, 16), core.Error)
			c.artifact.Abort(cerr)
			errs = append(errs, cerr)
			continue
		}
		if cerr := c.artifact.Close(); cerr != nil {
			errs = append(errs, cerr)
			continue
		}
		parts = append(parts, summaryOf(core))
		a.detail(res.Details, env, c, core)
		if a.Compress {
			res.After = append(res.After, compressLater(env, c.artifact.File().Name()))
		}
	}
	for i, m := range report.Missing {
		res.Details[fmt.Sprintf("helper-missing-%d", i+1)] = m
	}
	if report.Thawed > 0 {
		res.Details["freezer-open-for"] = report.Thawed.Round(time.Microsecond).String()
	}
	if report.Stopped > 0 {
		res.Details["traced-for"] = report.Stopped.Round(time.Microsecond).String()
	}
	res.Summary = strings.Join(parts, "; ")
	return res, errors.Join(errs...)
}

func summaryOf(c dump.Core) string {
	text := fmt.Sprintf("core of %d (%s): %s, %d threads, in %v", c.Pid, printable(c.Comm, 16),
		policy.FormatBytes(c.Data), c.Threads, c.Elapsed.Round(time.Millisecond))
	if c.Registers != "ptrace" {
		text += ", not by ptrace"
	}
	if len(c.Missing) > 0 {
		text += ", incomplete: " + printable(c.Missing[0], 200)
	}
	return text
}

// detail puts the figures of one core, and how to open it, into the record.
func (a CoreDump) detail(d map[string]string, env Env, c coreFile, core dump.Core) {
	set := func(key, value string) { d[fmt.Sprintf("%s-%d", key, c.Pid)] = value }
	set("data-bytes", fmt.Sprint(core.Data))
	set("file-bytes", fmt.Sprint(core.FileSize))
	set("threads", fmt.Sprint(core.Threads))
	set("mappings", fmt.Sprint(core.Segments))
	set("registers", core.Registers)
	set("pid-in-container", fmt.Sprint(core.InnerPid))
	set("elapsed", core.Elapsed.Round(time.Microsecond).String())
	for i, m := range core.Missing {
		set(fmt.Sprintf("missing-%d", i+1), printable(m, 300))
	}
	set("open", openCommand(env, c.Pid, core.Exe, c.artifact.File().Name(), a.Compress))
}
