package action

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/arbiterd/arbiter/arbiter/jvm"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
	"github.com/arbiterd/arbiter/tests/jvmkit"
)

// served starts a program in namespaces of its own and waits for its "ready".
func served(t *testing.T, argv ...string) (*testEnv, *jvmkit.Container) {
	t.Helper()
	if _, err := os.Stat(argv[0]); err != nil {
		t.Skipf("not installed: %s", argv[0])
	}
	c := jvmkit.Start(t, jvmkit.Options{}, argv...)
	c.Await(t, "ready")
	e := newTestEnv(t)
	e.cg.pids = []int{c.Pid}
	return e, c
}

// bounded is a context for one action.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func goServer(t *testing.T, withPprof bool) (*testEnv, *jvmkit.Container) {
	t.Helper()
	dir := jvmkit.TempDir(t)
	imports := ""
	if withPprof {
		imports = `import _ "net/http/pprof"`
	}
	src := `package main
import ("fmt"; "net"; "net/http")
` + imports + `
var Held = make([]byte, 32<<20)
func main() {
	for i := range Held { Held[i] = 1 }
	l, err := net.Listen("tcp", ":6061")
	if err != nil { panic(err) }
	fmt.Println("ready")
	panic(http.Serve(l, nil))
}`
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "server")
	if b, err := exec.Command("go", "build", "-o", bin, filepath.Join(dir, "main.go")).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, b)
	}
	return served(t, bin)
}

func TestGoDumps(t *testing.T) {
	t.Parallel()
	e, _ := goServer(t, true)
	res, err := newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "auto"}).Run(bounded(t), e.Env)
	if err != nil {
		t.Fatal(err)
	}
	var heap string
	for _, n := range e.files.names(t) {
		if strings.HasPrefix(n, "heap.") && strings.HasSuffix(n, ".pb.gz") {
			heap = filepath.Join(e.files.dir, n)
		}
	}
	out, err := exec.Command("go", "tool", "pprof", "-sample_index=inuse_space", "-unit=MB", "-top", heap).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "32MB") {
		t.Errorf("open %q: %v: %s", heap, err, out)
	}
	if res.Details["runtime"] != "go" {
		t.Errorf("details %v", res.Details)
	}
	if res, err = newThreadDump(policy.ThreadDumpOptions{}).Run(bounded(t), e.Env); err != nil || !strings.Contains(res.Summary, "goroutines") {
		t.Errorf("threads: %+v, %v", res, err)
	}
	profile := newProfile(policy.ProfileOptions{Port: 6061, Path: "/debug/pprof", Profiles: []string{"heap", "goroutine", "nothing"}})
	res, err = profile.Run(bounded(t), e.Env)
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a profile that is not there: %v", err)
	}
	if !strings.Contains(res.Summary, "heap ") || !strings.Contains(res.Summary, "goroutine ") {
		t.Errorf("those that are: %+v", res)
	}
}

// Without pprof there is no way but a core, and threads cannot be had at all.
func TestGoWithoutPprof(t *testing.T) {
	t.Parallel()
	e, c := goServer(t, false)
	if _, err := goHeap(bounded(t), e.Env, c.Pid); !errors.Is(err, errNoPprof) {
		t.Errorf("heap: %v", err)
	}
	if _, err := newThreadDump(policy.ThreadDumpOptions{}).Run(bounded(t), e.Env); !errors.Is(err, errNoPprof) {
		t.Errorf("threads: %v", err)
	}
}

const nodeProgram = `const held = []; for (let i = 0; i < 1e5; i++) held.push({i});
process.env.SECRET = 'swordfish'; console.log('ready'); setInterval(() => {}, 1000)`

func TestNodeReport(t *testing.T) {
	t.Parallel()
	// Modules of the two kinds differ in what is global in them.
	for _, name := range []string{"held.cjs", "held.mjs"} {
		t.Run(name, func(t *testing.T) { nodeReport(t, name) })
	}
}

func nodeReport(t *testing.T, name string) {
	script := filepath.Join(jvmkit.TempDir(t), name)
	if err := os.WriteFile(script, []byte(nodeProgram), 0o644); err != nil {
		t.Fatal(err)
	}
	e, c := served(t, "/usr/bin/node", script)
	for round := range 2 { // the second time, the inspector was closed again
		e.files.dir = t.TempDir()
		res, err := newNodeReport(policy.NodeReportOptions{Snapshot: round == 1}).Run(bounded(t), e.Env)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, n := range e.files.names(t) {
			if strings.HasPrefix(n, "node-report.") {
				text = e.files.read(t, n)
			}
		}
		var report struct {
			Heap struct {
				Used uint64 `json:"usedMemory"`
			} `json:"javascriptHeap"`
		}
		if err := json.Unmarshal([]byte(text), &report); err != nil || report.Heap.Used == 0 {
			t.Errorf("report %.100s: %v", text, err)
		}
		if strings.Contains(text, "swordfish") {
			t.Error("the report tells the environment")
		}
		if !strings.Contains(res.Summary, "node process") {
			t.Errorf("summary %q", res.Summary)
		}
		late := time.Now().Add(10 * time.Second)
		for {
			addrs, err := proc.FS("/proc").Listeners(c.Pid)
			if err != nil {
				t.Fatal(err)
			}
			if len(addrs) == 0 {
				break
			}
			if time.Now().After(late) {
				t.Fatalf("the inspector was left open at %v", addrs)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if !alive(c.Pid) {
		t.Error("node died")
	}
}

// A Node that does not catch SIGUSR1 would die of it.
func TestNodeWithoutSignal(t *testing.T) {
	t.Parallel()
	e, c := served(t, "/bin/sh", "-c", "echo ready; read x; :")
	if err := signalNode(bounded(t), e.Env, c.Pid); !errors.Is(err, errNoDump) {
		t.Errorf("got %v", err)
	}
	time.Sleep(100 * time.Millisecond)
	if !alive(c.Pid) {
		t.Error("it was killed")
	}
}

func alive(pid int) bool {
	p, err := proc.FS("/proc").OpenProcess(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	return p.Alive()
}

func TestJVMThreadsAndClasses(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{UserNS: true}, []string{"-Xmx256m"}, "60", "0")
	e.cg.pids = []int{c.Pid}
	res, err := newThreadDump(policy.ThreadDumpOptions{Locks: true}).Run(bounded(t), e.Env)
	if err != nil || !strings.Contains(res.Summary, "threads of jvm") {
		t.Errorf("threads: %+v, %v", res, err)
	}
	res, err = newClassHistogram(policy.ClassHistogramOptions{}).Run(bounded(t), e.Env)
	if err != nil || !strings.Contains(res.Summary, "[B") || res.Details["java-heap-bytes"] < "6" {
		t.Errorf("classes: %+v, %v", res, err)
	}
	if got := len(e.files.names(t)); got != 3 {
		t.Errorf("artifacts %q", e.files.names(t))
	}
}

// A disk that fills up while the dump streams ends the dump, not the JVM.
func TestJVMDiskFull(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-Xmx256m"}, "100", "0")
	e.cg.pids = []int{c.Pid}
	e.files.full = true
	dump := newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "auto"})
	if _, err := dump.Run(bounded(t), e.Env); !errors.Is(err, errDiskFull) {
		t.Errorf("got %v", err)
	}
	e.files.full, e.files.dir = false, t.TempDir()
	dump.MaxSize = policy.Size{Bytes: 64 << 10}
	if _, err := dump.Run(bounded(t), e.Env); !errors.Is(err, errMaxSize) {
		t.Errorf("got %v", err)
	}
	if left := c.Leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	e.files.dir, dump.MaxSize = t.TempDir(), policy.Size{}
	if _, err := dump.Run(bounded(t), e.Env); err != nil {
		t.Errorf("and then, with room: %v", err)
	}
}

func TestJVMByJcmd(t *testing.T) {
	t.Parallel()
	e := newTestEnv(t)
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-Xmx256m"}, "60", "0")
	e.cg.pids = []int{c.Pid}
	if _, err := newHeapDump(policy.HeapDumpOptions{Runtime: "jvm", Via: "jcmd"}).Run(bounded(t), e.Env); err != nil {
		t.Error(err)
	}
	if left := c.Leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// ZGC, in a JVM that would otherwise answer, is refused with a reason.
func TestJVMWithZGC(t *testing.T) {
	t.Parallel()
	c := jvmkit.Leaker(t, jvmkit.JDK(t), jvmkit.Options{}, []string{"-Xmx256m", "-XX:+UseZGC"}, "60", "0")
	e := newTestEnv(t)
	e.cg.pids = []int{c.Pid}
	_, err := newHeapDump(policy.HeapDumpOptions{Runtime: "auto", Via: "attach"}).Run(bounded(t), e.Env)
	if !errors.Is(err, jvm.ErrTakeCore) || !strings.Contains(err.Error(), "ZGC") {
		t.Errorf("got %v", err)
	}
}
