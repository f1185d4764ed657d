package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Runtime is the language runtime of a process, as match.runtime names it.
type Runtime string

const (
	JVM    Runtime = "jvm"
	Go     Runtime = "go"
	Node   Runtime = "node"
	Python Runtime = "python"
	DotNet Runtime = "dotnet"
	Native Runtime = "native" // none of the above
)

// detectTimeout bounds one detection. Files of a container may lie on a
// filesystem that never answers, and maps waits for the target's mmap lock.
const detectTimeout = 2 * time.Second

// DetectRuntime tells the runtime of process pid from outside. Names are only
// hints where to look: what decides is what the mapped files themselves export
// (JNI_CreateJavaVM, coreclr_initialize, node::Start, _PyRuntime) or hold (Go
// build info). The files are opened through /proc/PID/exe and map_files, that
// is by inode: a symlink or a file put in their place changes nothing.
//
// It costs 0.1 to 1 ms, reads a bounded amount, and returns within two seconds
// even if the target is stuck. It must be called before a freeze where speed
// matters, but works on a frozen process too. ErrGone: no such process, or one
// without a program (a zombie, a kernel thread).
func DetectRuntime(ctx context.Context, fs FS, pid int) (Runtime, error) {
	d, err := inspect(ctx, fs, pid)
	return d.runtime, err
}

// HotSpot tells whether pid runs a HotSpot JVM that SIGQUIT was made for: its
// libjvm.so is mapped and exports HotSpot's own tables, and the program itself
// is no Go binary, whose SIGQUIT handler would end it.
func HotSpot(ctx context.Context, fs FS, pid int) (bool, error) {
	d, err := inspect(ctx, fs, pid)
	return d.runtime == JVM && d.hotSpot && !d.goProgram, err
}

// DetectContainer tells the runtime of a container: that of its process with
// the most resident memory, which is the one that a dump is wanted of. The
// process is returned too.
func DetectContainer(ctx context.Context, fs FS, pids []int) (Runtime, int, error) {
	pid, err := largest(fs, pids)
	if err != nil {
		return "", 0, err
	}
	rt, err := DetectRuntime(ctx, fs, pid)
	return rt, pid, err
}

// FindRuntime is the process with the most resident memory among those of one
// runtime.
func FindRuntime(ctx context.Context, fs FS, pids []int, want Runtime) (int, error) {
	rest := slices.Clone(pids)
	for range min(len(rest), maxSearched) {
		pid, err := largest(fs, rest)
		if err != nil {
			return 0, err
		}
		if rt, err := DetectRuntime(ctx, fs, pid); err == nil && rt == want {
			return pid, nil
		}
		rest = slices.DeleteFunc(rest, func(p int) bool { return p == pid })
	}
	return 0, fmt.Errorf("no %s among %d processes", want, len(pids))
}

// maxSearched bounds FindRuntime in a container of thousands of processes: the
// one that fills it is among the largest.
const maxSearched = 64

// largest is the process with the most resident memory; ties go to the lower
// pid, which is the older one. statm takes no lock of the target.
func largest(fs FS, pids []int) (int, error) {
	best, most := 0, int64(-1)
	for _, pid := range pids {
		rss, err := residentPages(fs, pid)
		if err != nil {
			continue // gone meanwhile
		}
		if rss > most || rss == most && pid < best {
			best, most = pid, rss
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("detect runtime among %d processes: %w", len(pids), ErrGone)
	}
	return best, nil
}

func residentPages(fs FS, pid int) (int64, error) {
	b, err := os.ReadFile(fs.Path(pid, "statm"))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, fmt.Errorf("parse statm of %d: %w", pid, err)
	}
	return resident, nil
}

// detection is what inspect saw.
type detection struct {
	runtime   Runtime
	hotSpot   bool // the JVM is HotSpot
	goProgram bool // the executable holds a Go runtime, whatever else is mapped
}

func inspect(ctx context.Context, fs FS, pid int) (detection, error) {
	ctx, cancel := context.WithTimeout(ctx, detectTimeout)
	defer cancel()
	d, err := Abandon(ctx, func() (detection, error) { return inspectNow(fs, pid) })
	if err != nil {
		return detection{}, fmt.Errorf("detect runtime of %d: %w", pid, err)
	}
	return d, nil
}

func inspectNow(fs FS, pid int) (detection, error) {
	exe, err := openELF(fs.Path(pid, "exe"))
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return detection{}, ErrGone
	case errors.Is(err, errNotELF):
		return detection{runtime: Native}, nil
	case err != nil:
		return detection{}, err
	}
	defer exe.Close()
	libs, err := mappedLibraries(fs, pid)
	if err != nil {
		return detection{}, err
	}
	return classify(exe, libs), nil
}

// classify decides. A runtime that was loaded comes before the program that
// loaded it: launchers are small native programs.
func classify(exe *elfFile, libs []library) detection {
	d := detection{runtime: Native, goProgram: exe.isGo()}
	for _, l := range libs {
		d.apply(exe, l)
	}
	if d.runtime != Native {
		return d
	}
	switch {
	case exe.defines(nodeStart):
		d.runtime = Node
	case d.goProgram:
		d.runtime = Go
	case exe.defines("_PyRuntime"), exe.defines("Py_Main"):
		d.runtime = Python // _PyRuntime since 3.7
	case exe.defines("DotNetRuntimeInfo"):
		d.runtime = DotNet // a single-file program carries coreclr inside
	}
	return d
}

// nodeStart is node::Start(int, char**), which node exports for embedders and
// other programs with N-API (Bun, Deno) do not.
const nodeStart = "_ZN4node5StartEiPPc"

// apply judges one mapped library whose name is a hint.
func (d *detection) apply(exe *elfFile, l library) {
	f, err := openELF(l.file)
	if err != nil {
		return // not what its name says, or unmapped meanwhile
	}
	defer f.Close()
	switch l.kind {
	case JVM:
		if f.defines("JNI_CreateJavaVM") {
			d.runtime, d.hotSpot = JVM, d.hotSpot || f.defines("gHotSpotVMStructs")
		}
	case DotNet:
		if d.runtime == Native && f.defines("coreclr_initialize") {
			d.runtime = DotNet
		}
	case Node:
		if d.runtime == Native && f.defines(nodeStart) {
			d.runtime = Node
		}
	case Python:
		// Programs that only embed Python (gdb) map it too. An interpreter is
		// one whose program is nothing but a call of Python's main.
		if d.runtime == Native && f.defines("Py_Main") && exe.importsAny("Py_BytesMain", "Py_Main", "Py_RunMain", "_Py_UnixMain") {
			d.runtime = Python
		}
	}
}

// libraryHints are the names under which runtimes ship as shared libraries.
var libraryHints = []struct {
	prefix string
	kind   Runtime
}{
	{"libjvm.so", JVM},
	{"libcoreclr.so", DotNet},
	{"libnode.so", Node},
	{"libpython", Python},
}

// hint is the runtime that a file name suggests.
func hint(base string) (Runtime, bool) {
	for _, h := range libraryHints {
		if strings.HasPrefix(base, h.prefix) {
			return h.kind, true
		}
	}
	return "", false
}
