package testkit

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childEnv tells a re-executed test binary what to do.
const childEnv = "ARBITER_TESTKIT_CHILD"

// Kind is what a Child does with memory.
type Kind string

// What a child can do.
const (
	Sleep    Kind = "sleep"    // nothing
	Anon     Kind = "anon"     // touches new anonymous pages one by one, and keeps them
	Populate Kind = "populate" // maps populated blocks: charged inside a system call
	Pipe     Kind = "pipe"     // fills pipes: kernel memory only
	Cache    Kind = "cache"    // writes and reads a file, again and again
	Steady   Kind = "steady"   // grows to Ceiling, then frees and retakes Block for ever
	Forks    Kind = "forks"    // starts children without end
)

// A Load describes a child.
type Load struct {
	Kind    Kind
	Threads int           // Anon: how many touch pages; 0 is one
	Block   uint64        // bytes at once (Populate, Steady)
	Ceiling uint64        // bytes after which it stands still; 0 is never
	Pause   time.Duration // between blocks, or between pages of Anon
	File    string        // Cache: the file
}

// progress is shared between a child and its test. Its page is charged to the
// test, and writing to it needs no new memory.
type progress struct {
	pages  atomic.Uint64 // pages touched, and blocks of other kinds
	errors atomic.Uint64 // failed system calls
	bad    atomic.Uint64 // pages that held something else than was written
	verify atomic.Uint64 // how often the test asked for a look
	looked atomic.Uint64 // how often the child has looked
	done   atomic.Uint64 // the ceiling is reached
}

// A Child is a process in a test cgroup.
type Child struct {
	Pid int
	t   testing.TB
	p   *progress
	cmd *exec.Cmd
	end chan struct{}
}

// Main runs the tests, or the child that this process was started as.
func Main(m *testing.M) {
	if load := os.Getenv(childEnv); load != "" {
		runChild(load)
		return
	}
	os.Exit(m.Run())
}

// Start runs a child in the group. It is placed there before it allocates.
func (g *Group) Start(l Load) *Child {
	g.t.Helper()
	spec, err := json.Marshal(l)
	if err != nil {
		g.t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("progress", unix.MFD_CLOEXEC)
	if err != nil {
		g.t.Fatal(err)
	}
	shared := os.NewFile(uintptr(fd), "progress")
	defer shared.Close()
	if err := shared.Truncate(int64(os.Getpagesize())); err != nil {
		g.t.Fatal(err)
	}
	c := &Child{t: g.t, p: mapProgress(fd), end: make(chan struct{})}
	c.p.pages.Store(0) // charges the page to the test
	c.cmd = exec.Command("/proc/self/exe")
	// A signal that arrives at the limit needs a page for its frame; the kernel
	// cannot wait for one there and sends SIGSEGV. So the child gets none.
	c.cmd.Env = []string{"GODEBUG=asyncpreemptoff=1", childEnv + "=" + string(spec), fmt.Sprintf("GOMAXPROCS=%d", l.Threads+2), "GOGC=off"}
	c.cmd.ExtraFiles = []*os.File{shared}
	gate, err := c.cmd.StdinPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	c.Pid = c.cmd.Process.Pid
	go func() {
		_ = c.cmd.Wait()
		close(c.end)
	}()
	// Not by its pid, which may be somebody else's by then.
	g.t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	g.Place(c.Pid)
	if _, err := gate.Write([]byte("go\n")); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// mapProgress maps the page that parent and child share.
func mapProgress(fd int) *progress {
	b, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*progress)(unsafe.Pointer(&b[0]))
}

// Pages is how many pages, or blocks, the child has touched so far.
func (c *Child) Pages() uint64 { return c.p.pages.Load() }

// Errors is how many of its system calls have failed for want of memory.
func (c *Child) Errors() uint64 { return c.p.errors.Load() }

// Done reports whether it reached its ceiling.
func (c *Child) Done() bool { return c.p.done.Load() != 0 }

// Exited reports whether the process is gone.
func (c *Child) Exited() bool {
	select {
	case <-c.end:
		return true
	default:
		return false
	}
}

// Await waits for the process' end.
func (c *Child) Await() {
	c.t.Helper()
	select {
	case <-c.end:
	case <-time.After(Patience):
		c.t.Fatalf("process %d does not end", c.Pid)
	}
}

// Intact asks a running Anon child to compare every page with what it wrote.
func (c *Child) Intact() bool {
	c.t.Helper()
	n := c.p.verify.Add(1)
	Eventually(c.t, "the child looks at its pages", func() bool { return c.p.looked.Load() >= n })
	return c.p.bad.Load() == 0
}

// Asleep reports whether a thread waits for memory at a v1 limit.
func (c *Child) Asleep() bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.Pid))
	if err != nil {
		return false
	}
	for _, task := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/wchan", c.Pid, task.Name()))
		if string(b) == "mem_cgroup_oom_synchronize" {
			return true
		}
	}
	return false
}

// State is the state letter of /proc/PID/stat; 0 if the process is gone.
func (c *Child) State() byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(c.Pid) + "/stat")
	if err != nil {
		return 0
	}
	_, after, ok := strings.Cut(string(b), ") ")
	if !ok || after == "" {
		return 0
	}
	return after[0]
}

// Switches counts the context switches of all threads of the process: it stays
// the same while nothing runs. 0 if it is gone.
func (c *Child) Switches() uint64 {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.Pid))
	if err != nil {
		return 0
	}
	sum := uint64(0)
	for _, task := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", c.Pid, task.Name()))
		for line := range strings.Lines(string(b)) {
			if _, n, ok := strings.Cut(strings.TrimSpace(line), "ctxt_switches:\t"); ok {
				v, _ := strconv.ParseUint(n, 10, 64)
				sum += v
			}
		}
	}
	return sum
}

// runChild waits to be placed, and does what the load says, for ever.
func runChild(spec string) {
	var l Load
	if err := json.Unmarshal([]byte(spec), &l); err != nil {
		panic(err)
	}
	p := mapProgress(3)
	var b [3]byte
	if n, _ := os.Stdin.Read(b[:]); n == 0 {
		return // the test is gone
	}
	// At the limit no thread can be made, and the runtime dies of that.
	makeThreads(l.Threads + spareThreads)
	switch l.Kind {
	case Anon:
		l.Threads = max(l.Threads, 1)
		var ready atomic.Int64
		for i := range l.Threads - 1 {
			go l.touch(p, uint64(i+1), &ready)
		}
		l.touch(p, 0, &ready)
	case Populate:
		l.populate(p)
	case Pipe:
		l.pipes(p)
	case Cache:
		l.cache(p)
	case Steady:
		l.steady(p)
	case Forks:
		forks(p)
	}
	stand()
}

// spareThreads are for the runtime, which hands the work of a thread that is
// long in a system call to another one.
const spareThreads = 8

// makeThreads makes the runtime own n more idle threads.
func makeThreads(n int) {
	var made atomic.Int64
	var ended sync.WaitGroup
	for range n {
		ended.Go(func() { gather(&made, n); runtime.UnlockOSThread() })
	}
	ended.Wait()
}

func stand() {
	for {
		_ = unix.Pause()
	}
}

const page = 4096

// gather waits, on a thread of its own, until all threads do.
func gather(ready *atomic.Int64, all int) {
	runtime.LockOSThread()
	ready.Add(1)
	for ready.Load() < int64(all) {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
	}
}

// touch takes new pages one by one, each with its own number in it.
func (l Load) touch(p *progress, thread uint64, ready *atomic.Int64) {
	chunks := [][]byte{l.chunk(p)}
	gather(ready, l.Threads)
	own := uint64(0)
	for most := l.Ceiling / uint64(l.Threads) / page; l.Ceiling == 0 || own < most; {
		if own > 0 && own*page%chunk == 0 {
			chunks = append(chunks, l.chunk(p))
		}
		at := own * page % chunk
		*(*uint64)(unsafe.Pointer(&chunks[len(chunks)-1][at])) = own<<8 | thread&0xff | 1<<62
		own++
		p.pages.Add(1)
		if l.Pause > 0 {
			time.Sleep(l.Pause)
		}
		if thread == 0 {
			l.look(p, chunks, own)
		}
	}
	p.done.Store(1)
	for thread == 0 {
		l.look(p, chunks, own)
		time.Sleep(time.Millisecond)
	}
	stand()
}

// chunk is how much address space a thread takes at once.
const chunk = 64 << 20

func (l Load) chunk(p *progress) []byte {
	b, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		p.errors.Add(1)
		stand()
	}
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	return b
}

// look compares all pages with what was written, if the test asks.
func (l Load) look(p *progress, chunks [][]byte, own uint64) {
	asked := p.verify.Load()
	if asked == p.looked.Load() {
		return
	}
	for i := range own {
		b := chunks[i*page/chunk]
		if *(*uint64)(unsafe.Pointer(&b[i*page%chunk])) != i<<8|1<<62 {
			p.bad.Add(1)
		}
	}
	p.looked.Store(asked)
}

func (l Load) populate(p *progress) {
	for taken := uint64(0); l.Ceiling == 0 || taken < l.Ceiling; taken += l.Block {
		// MAP_POPULATE hides its errors; MADV_POPULATE_WRITE reports them.
		b, err := unix.Mmap(-1, 0, int(l.Block), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err == nil {
			err = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
		}
		if err != nil {
			p.errors.Add(1)
			stand()
		}
		p.pages.Add(1)
		time.Sleep(l.Pause)
	}
	p.done.Store(1)
}

func (l Load) pipes(p *progress) {
	block := make([]byte, 64<<10)
	for {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_NONBLOCK); err != nil {
			p.errors.Add(1)
			stand()
		}
		n, err := unix.Write(fds[1], block)
		if err != nil || n < len(block) {
			p.errors.Add(1)
			stand()
		}
		p.pages.Add(1)
		time.Sleep(l.Pause)
	}
}

func (l Load) cache(p *progress) {
	block := make([]byte, 1<<20)
	f, err := os.Create(l.File)
	if err != nil {
		panic(err)
	}
	for {
		for at := uint64(0); at < l.Ceiling; at += uint64(len(block)) {
			if _, err := f.WriteAt(block, int64(at)); err != nil {
				p.errors.Add(1)
			}
			p.pages.Add(1)
		}
		_ = f.Sync()
		p.done.Store(1)
	}
}

// steady lives near its limit: it keeps most of Ceiling, and frees and takes
// the last Block again and again.
func (l Load) steady(p *progress) {
	hold := func(n uint64) []byte {
		b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			panic(err)
		}
		for i := 0; i < len(b); i += page {
			b[i] = 1
		}
		return b
	}
	base := hold(l.Ceiling - l.Block)
	for {
		b := hold(l.Block)
		p.pages.Add(1)
		p.done.Store(1)
		time.Sleep(l.Pause)
		_ = unix.Munmap(b)
		runtime.KeepAlive(base)
	}
}

// forks starts children that start children, each of which sleeps.
func forks(p *progress) {
	for {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = os.Environ()
		cmd.Stdin = strings.NewReader("go\n")
		shared := os.NewFile(3, "progress")
		cmd.ExtraFiles = []*os.File{shared}
		if cmd.Start() == nil {
			p.pages.Add(1)
		} else {
			p.errors.Add(1)
			time.Sleep(time.Millisecond)
		}
		runtime.KeepAlive(shared)
	}
}
