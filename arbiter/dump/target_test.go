package dump

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary plays all parts: the helper, and the processes to be dumped.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "dump":
			os.Exit(Main(context.Background(), os.Args[2:], os.Stdin, os.Stdout))
		case "target":
			playTarget(os.Args[2], os.Args[3:])
		case "daemon":
			playDaemon(os.Args[2], os.Args[3], os.Args[4])
		}
	}
	os.Exit(m.Run())
}

// A target is a process to be dumped.
type target struct {
	cmd    *exec.Cmd
	pid    int
	stdin  io.Writer
	stdout *bufio.Reader
	Info   targetInfo
}

// targetInfo is what a target tells of itself.
type targetInfo struct {
	Dense, Sparse, Reserved, Hidden, Shared, Memfd, Private, Clean, DontDump uint64
}

// playTarget is the main function of a target.
func playTarget(kind string, args []string) {
	number := func(i int) int {
		n, err := strconv.Atoi(args[i])
		check(err)
		return n
	}
	var info targetInfo
	// Pages are touched one by one: huge ones would use the limit up at once.
	check(unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0))
	if os.Getenv("ARBITER_WAIT") != "" { // until it is in its cgroup
		_, err := os.Stdin.Read(make([]byte, 1))
		check(err)
	}
	switch kind {
	case "memory":
		info = allKinds(len(args) > 0)
	case "dense":
		info.Dense = fill(mapAnon(uint64(number(0))<<20), 1)
	case "sparse": // megabytes of space, of which one page in n is touched
		info.Sparse = fill(mapAnon(uint64(number(0))<<20), number(1))
	case "threads":
		for range number(0) {
			go func() { runtime.LockOSThread(); select {} }()
		}
		for tids := 0; tids < number(0); {
			names, err := os.ReadDir("/proc/self/task")
			check(err)
			tids = len(names)
			time.Sleep(time.Millisecond)
		}
	case "mappings":
		mapMany(number(0))
	case "spin":
		go spin(args[0])
	case "file":
		info = mapAndDelete(args[0])
	}
	b, err := json.Marshal(info)
	check(err)
	fmt.Println(string(b))
	if os.Getenv("ARBITER_WAIT") != "" {
		growForever(os.Getenv("ARBITER_COUNTER"))
	}
	for { // until killed
		time.Sleep(time.Hour)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "target:", err)
		os.Exit(1)
	}
}

func mapAt(fd int, size uint64, prot, flags int) []byte {
	b, err := unix.Mmap(fd, 0, int(size), prot, flags)
	check(err)
	return b
}

func mapAnon(size uint64) []byte {
	return mapAt(-1, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
}

// fill touches every nth page with a pattern of its own.
func fill(b []byte, nth int) uint64 {
	for at := 0; at < len(b); at += nth * pageSize {
		for i := 0; i < pageSize; i += 512 {
			*(*uint64)(unsafe.Pointer(&b[at+i])) = uint64(at+i) ^ 0xA5B17E5A5B17E5
		}
	}
	return addressOf(b)
}

func memfd(size int64) int {
	fd, err := unix.MemfdCreate("arbiter-target", 0)
	check(err)
	check(unix.Ftruncate(fd, size))
	return fd
}

// allKinds maps memory of every kind that a core treats in its own way.
func allKinds(terabyte bool) targetInfo {
	const size, rw = 64 * pageSize, unix.PROT_READ | unix.PROT_WRITE
	var info targetInfo
	info.Dense = fill(mapAnon(size), 1)
	info.Sparse = fill(mapAnon(1<<28), 1024)
	if terabyte { // of which one page is touched
		info.Reserved = fill(mapAnon(1 << 40)[:pageSize], 1)
	}
	hidden := mapAnon(size)
	info.Hidden = fill(hidden, 2)
	check(unix.Mprotect(hidden, unix.PROT_NONE))
	info.Shared = fill(mapAt(-1, size, rw, unix.MAP_SHARED|unix.MAP_ANON), 3)
	fd := memfd(2 * size)
	_, err := unix.Pwrite(fd, []byte("written, never mapped"), 5*pageSize)
	check(err)
	info.Memfd = fill(mapAt(fd, size, rw, unix.MAP_SHARED)[8*pageSize:], 8)
	info.Private = fill(mapAt(fd, size, rw, unix.MAP_PRIVATE)[16*pageSize:17*pageSize], 1)
	dontDump := mapAnon(size)
	check(unix.Madvise(dontDump, unix.MADV_DONTDUMP))
	info.DontDump = fill(dontDump, 1)
	return info
}

// mapMany makes n mappings that the kernel cannot merge.
func mapMany(n int) {
	for i := range n {
		b := mapAnon(2 * pageSize)
		fill(b[:pageSize], 1)
		check(unix.Mprotect(b[pageSize:], unix.PROT_READ*(i%2)))
	}
}

// spin counts in a file, so that a test can tell whether it runs.
func spin(name string) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	check(err)
	b := mapAt(int(f.Fd()), pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	for {
		atomic.AddUint64((*uint64)(unsafe.Pointer(&b[0])), 1)
	}
}

// mapAndDelete maps a file twice and removes it.
func mapAndDelete(name string) targetInfo {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	check(err)
	const size, rw = 16 * pageSize, unix.PROT_READ | unix.PROT_WRITE
	private, shared := mapAt(int(f.Fd()), size, rw, unix.MAP_PRIVATE), mapAt(int(f.Fd()), size, rw, unix.MAP_SHARED)
	clean := mapAt(int(f.Fd()), size, unix.PROT_READ, unix.MAP_PRIVATE)
	private[3*pageSize], shared[5*pageSize] = 'X', 'Y'
	check(os.Remove(name))
	return targetInfo{Private: addressOf(private), Shared: addressOf(shared), Clean: addressOf(clean)}
}

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }

// playDaemon dumps a process, and says when the helper waits for it with all
// threads trapped, or when the helper writes.
func playDaemon(pid, name, when string) {
	n, err := strconv.Atoi(pid)
	check(err)
	start, err := StartTime(n)
	check(err)
	f, err := os.Create(name)
	check(err)
	hold := Hold{Trap: func(ctx context.Context, wait func(context.Context) error) error {
		err := wait(ctx)
		if when == "trapped" {
			fmt.Print("t")
			<-ctx.Done()
		}
		return err
	}}
	tell := func(done, _ uint64) {
		if when == "writing" && done > 0 {
			fmt.Print("w")
		}
	}
	req := Request{Held: []Process{{n, start}}, Targets: []Target{{Pid: n}}}
	_, err = Helper{}.Dump(context.Background(), req, []*os.File{f}, hold, tell)
	check(err)
	os.Exit(0)
}

// growForever touches page after page and counts them where a test can see it.
func growForever(counter string) {
	f, err := os.OpenFile(counter, os.O_RDWR, 0)
	check(err)
	count := mapAt(int(f.Fd()), pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	for range 4 { // others that sleep, and one that runs
		go func() { runtime.LockOSThread(); select {} }()
	}
	for b := mapAnon(8 << 30); len(b) > 0; b = b[pageSize:] {
		b[0] = 1
		atomic.AddUint64((*uint64)(unsafe.Pointer(&count[0])), 1)
	}
}

// startTarget runs a target until it is ready.
func startTarget(t testing.TB, kind string, args ...string) *target {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"target", kind}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	tg := &target{cmd: cmd, pid: cmd.Process.Pid, stdout: bufio.NewReader(out)}
	tg.readInfo(t)
	return tg
}

// pause stops the target by a signal and waits until all of it stands.
func (tg *target) pause(t testing.TB) {
	t.Helper()
	if err := unix.Kill(tg.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopped", func() bool { return tg.stopped(t) })
}

func (tg *target) stopped(t testing.TB) bool {
	tids, err := processDir(tg.pid).tasks()
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		if s, err := processDir(tg.pid).thread(tid).stat(); err != nil || s.State != 'T' {
			return false
		}
	}
	return true
}

func (tg *target) process(t testing.TB) Process {
	t.Helper()
	start, err := StartTime(tg.pid)
	if err != nil {
		t.Fatal(err)
	}
	return Process{tg.pid, start}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s in 20 s", what)
		}
	}
}

func blocksOf(st os.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks * 512 }

// traceFromAnotherThread plays the debugger that was there first.
func traceFromAnotherThread(t testing.TB, pid int) (release func()) {
	t.Helper()
	seized, done, ended := make(chan error), make(chan struct{}), make(chan struct{})
	go offMainThread(func() {
		defer close(ended)
		tids, err := processDir(pid).tasks()
		for _, tid := range tids {
			if err == nil {
				err = unix.PtraceSeize(tid)
			}
		}
		seized <- err
		<-done
	})
	if err := <-seized; err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		close(done)
		<-ended
		eventually(t, "untraced", func() bool {
			status, _ := processDir(pid).read("status")
			return statusField(status, "TracerPid") == "0"
		})
	})
}

// offMainThread runs f on a thread that ends with it, and with it whatever it
// traces. The main thread never ends.
func offMainThread(f func()) {
	runtime.LockOSThread() // never unlocked
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done // the main thread is taken as long: the other goroutine cannot have it
}
