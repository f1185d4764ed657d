package dump

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dumpOne dumps one process into a new file.
func dumpOne(t testing.TB, tg *target, change func(*Request)) (Core, Report, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), fmt.Sprintf("core.%d.elf", tg.pid))
	core, report := dumpTo(t, tg, name, change)
	return core, report, name
}

func dumpTo(t testing.TB, tg *target, name string, change func(*Request)) (Core, Report) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	req := Request{Held: []Process{tg.process(t)}, Targets: []Target{{Pid: tg.pid}}}
	if change != nil {
		change(&req)
	}
	report, err := Helper{}.Dump(ctx, req, []*os.File{f}, Hold{}, nil)
	if err != nil {
		t.Fatalf("dump %d: %v", tg.pid, err)
	}
	if len(report.Cores) != 1 {
		t.Fatalf("%d cores", len(report.Cores))
	}
	return report.Cores[0], report
}

func TestKernelCoreEqualsProcess(t *testing.T) {
	t.Parallel()
	tg := startTarget(t, "memory", "terabyte")
	tg.pause(t)
	core, report, name := dumpOne(t, tg, nil)
	if core.Error != "" || len(core.Missing) > 0 || core.Registers != "ptrace" || report.Untraced != "" {
		t.Errorf("core %+v, untraced %q", core, report.Untraced)
	}
	f := openCore(t, name)
	st, err := os.Stat(name) // before it is read: some file systems fill holes then
	if err != nil {
		t.Fatal(err)
	}
	if disk := blocksOf(st); disk > 64<<20 || st.Size() > 4<<30 {
		t.Errorf("the core takes %d bytes of disk, %d with holes", disk, st.Size())
	}
	if n := compare(t, f, tg); n < 300 {
		t.Errorf("only %d pages compared", n)
	}
	i := tg.Info
	for what, addr := range map[string]uint64{"dense": i.Dense, "sparse": i.Sparse + 1<<27, "reserved": i.Reserved,
		"hidden": i.Hidden, "shared": i.Shared, "memfd": i.Memfd, "private": i.Private} {
		if !has(f, addr) {
			t.Errorf("%s memory at %#x is not in the core", what, addr)
		}
	}
	if has(f, i.DontDump) {
		t.Error("MADV_DONTDUMP memory is in the core")
	}
	count, missing := notes(t, f)
	if missing != "complete\n" {
		t.Errorf("the core says %q", missing)
	}
	for kind, want := range map[uint32]int{ntPrstatus: core.Threads, ntPrfpreg: core.Threads, ntX86Xstate: core.Threads,
		ntPrpsinfo: 1, ntSiginfo: 1, ntAuxv: 1, ntFile: 1} {
		if count[kind] != want {
			t.Errorf("%d notes of type %#x, want %d", count[kind], kind, want)
		}
	}
	if !tg.stopped(t) {
		t.Error("the target did not stay stopped")
	}
}

func TestKernelManyMappingsAndThreads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, arg string
		segments  int
		threads   int
	}{{"mappings", "25000", 50000, 1}, {"threads", "1000", 1, 1000}} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			tg := startTarget(t, c.kind, c.arg)
			tg.pause(t)
			core, report, name := dumpOne(t, tg, nil)
			t.Logf("%s: %d segments, %d threads in %v, stopped %v", c.kind, core.Segments, core.Threads, core.Elapsed, report.Stopped)
			if core.Error != "" || len(core.Missing) > 0 || core.Segments < c.segments || core.Threads < c.threads {
				t.Errorf("core %+v", core)
			}
			compare(t, openCore(t, name), tg)
		})
	}
}

func TestKernelTracedByAnother(t *testing.T) {
	t.Parallel()
	tg := startTarget(t, "memory")
	tg.pause(t)
	release := traceFromAnotherThread(t, tg.pid)
	defer release()
	core, _, name := dumpOne(t, tg, nil)
	if core.Error != "" || core.Registers != "syscall" || core.Threads == 0 {
		t.Errorf("core %+v", core)
	}
	if all := strings.Join(core.Missing, "\n"); !strings.Contains(all, "traced by another process") {
		t.Errorf("the record does not say why registers are missing: %q", all)
	}
	compare(t, openCore(t, name), tg)
}

func TestKernelPidReused(t *testing.T) {
	t.Parallel()
	tg := startTarget(t, "memory")
	core, _, _ := dumpOne(t, tg, func(r *Request) { r.Held[0].Start-- })
	if !core.Gone || !strings.Contains(core.Error, ErrGone.Error()) {
		t.Errorf("another process with the pid was dumped: %+v", core)
	}
	status, err := processDir(tg.pid).read("status")
	if err != nil {
		t.Fatal(err)
	}
	if by := statusField(status, "TracerPid"); by != "0" {
		t.Errorf("still traced by %s", by)
	}
}

func TestKernelBounds(t *testing.T) {
	t.Parallel()
	tg := startTarget(t, "dense", "64")
	tg.pause(t)
	for _, c := range []struct {
		name    string
		change  func(*Request)
		missing string
	}{
		{"size", func(r *Request) { r.MaxBytes = 16 << 20 }, "max-size is 16777216"},
		{"time", func(r *Request) { r.Within = time.Nanosecond }, "time of 1ns"},
		{"floor", func(r *Request) { r.MinFree = 1 << 60 }, errFloor.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			core, _, name := dumpOne(t, tg, c.change)
			if core.Error != "" || !strings.Contains(strings.Join(core.Missing, "\n"), c.missing) {
				t.Errorf("core %+v", core)
			}
			if core.Data > 32<<20 {
				t.Errorf("%d bytes were written", core.Data)
			}
			f := openCore(t, name)
			if _, missing := notes(t, f); !strings.Contains(missing, c.missing) {
				t.Errorf("the core says %q", missing)
			}
			for _, p := range f.Progs { // what is left out is not in the file, rather than zero
				if p.Type == elf.PT_LOAD && p.Filesz > 0 {
					compareSegment(t, p, memOf(t, tg.pid))
				}
			}
		})
	}
}

func TestKernelDiskFullInTheMiddle(t *testing.T) {
	t.Parallel()
	tg := startTarget(t, "dense", "64")
	tg.pause(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	name := filepath.Join(dir, "core")
	core, _ := dumpTo(t, tg, name, nil)
	if core.Error != "" || !strings.Contains(strings.Join(core.Missing, "\n"), "no space left on device") {
		t.Errorf("core %+v", core)
	}
	f := openCore(t, name)
	if _, missing := notes(t, f); !strings.Contains(missing, "no space left on device") {
		t.Errorf("the core says %q", missing)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Filesz > 0 {
			compareSegment(t, p, memOf(t, tg.pid))
		}
	}
	f.Close()
}

// A file that was deleted is nowhere but in the process: its clean pages are
// dumped as well.
func TestKernelDeletedFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "mapped")
	if err := os.WriteFile(name, bytes.Repeat([]byte("deleted!"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	tg := startTarget(t, "file", name) // maps and deletes it
	tg.pause(t)
	core, _, out := dumpOne(t, tg, nil)
	if core.Error != "" || len(core.Missing) > 0 {
		t.Errorf("core %+v", core)
	}
	f := openCore(t, out)
	compare(t, f, tg)
	for _, addr := range []uint64{tg.Info.Private, tg.Info.Private + 15*pageSize, tg.Info.Shared, tg.Info.Clean + 7*pageSize} {
		if !has(f, addr) {
			t.Errorf("page %#x of the deleted file is not in the core", addr)
		}
	}
}

// The helper dies with the daemon, wherever it is, and nobody stays stopped.
func TestKernelDaemonKilled(t *testing.T) {
	t.Parallel()
	for when, size := range map[string]string{"trapped": "8", "writing": "1024"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			tg := startTarget(t, "dense", size)
			name := filepath.Join(t.TempDir(), "core")
			daemon := exec.Command(os.Args[0], "daemon", strconv.Itoa(tg.pid), name, when)
			out, err := daemon.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
			if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			helper := tracerOf(t, tg.pid)
			_ = daemon.Process.Kill()
			awaitUntraced(t, tg.pid, helper)
			if when == "writing" {
				if _, missing := notes(t, openCore(t, name)); missing != unfinished {
					t.Errorf("the core of a dead helper says %q", missing)
				}
			}
			_ = daemon.Wait()
			eventually(t, "swept", func() bool { // a dead daemon cannot, the next one does
				sweep(ownCgroup())
				_, err := os.Stat(filepath.Join(ownCgroup(), cgroupPrefix+strconv.Itoa(helper)))
				return errors.Is(err, fs.ErrNotExist)
			})
		})
	}
}

func tracerOf(t testing.TB, pid int) int {
	t.Helper()
	status, err := processDir(pid).read("status")
	if err != nil {
		t.Fatal(err)
	}
	tracer, err := strconv.Atoi(statusField(status, "TracerPid"))
	if err != nil || tracer == 0 {
		t.Fatalf("process %d is not traced (%v)", pid, err)
	}
	return tracer
}

func awaitUntraced(t testing.TB, pid, helper int) {
	t.Helper()
	eventually(t, "without a helper", func() bool {
		s, err := processDir(helper).stat()
		return err != nil || s.State == 'Z'
	})
	eventually(t, "running again", func() bool {
		status, _ := processDir(pid).read("status")
		return statusField(status, "TracerPid") == "0" && !strings.HasPrefix(statusField(status, "State"), "t")
	})
}

func TestKernelTargetDiesInTheMiddle(t *testing.T) {
	t.Parallel()
	tg := startTarget(t, "dense", "256")
	f, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	hold := Hold{Trap: func(ctx context.Context, wait func(context.Context) error) error {
		err := wait(ctx)
		_ = tg.cmd.Process.Kill()
		eventually(t, "dead", func() bool { s, err := processDir(tg.pid).stat(); return err != nil || s.State == 'Z' })
		return err
	}}
	report, err := Helper{}.Dump(ctx, Request{Held: []Process{tg.process(t)}, Targets: []Target{{Pid: tg.pid}}}, []*os.File{f}, hold, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := report.Cores[0]; !c.Gone {
		t.Errorf("core of a dead process: %+v", c)
	}
}

func TestKernelHelperKilled(t *testing.T) {
	t.Parallel()
	tg := startTarget(t, "dense", "64")
	f, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	closed := false
	hold := Hold{Trap: func(ctx context.Context, wait func(context.Context) error) error {
		killTracer(t, tg.pid)
		err := wait(ctx)
		closed = true
		return err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = Helper{}.Dump(ctx, Request{Held: []Process{tg.process(t)}, Targets: []Target{{Pid: tg.pid}}}, []*os.File{f}, hold, nil)
	if err == nil || !closed {
		t.Errorf("error %v, freezer closed %t", err, closed)
	}
	if s, err := processDir(tg.pid).stat(); err != nil || s.State == 't' {
		t.Errorf("the target was left in state %c (%v)", s.State, err)
	}
}

func TestMainRefusesAStranger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if code := Main(context.Background(), []string{"1"}, strings.NewReader("{}"), &out); code == 0 || !strings.Contains(out.String(), "usage") {
		t.Errorf("exit status %d, output %q", code, out.String())
	}
}
