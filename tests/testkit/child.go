package testkit

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
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
