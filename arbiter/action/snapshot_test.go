package action

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// A host is a /proc and a cgroup hierarchy made of files.
type host struct {
	t    *testing.T
	root string
}

func newHost(t *testing.T, mount string) host {
	h := host{t, t.TempDir()}
	h.write("proc/meminfo", "MemTotal: 24000000 kB\nMemAvailable: 12000000 kB\n")
	for _, kind := range []string{"memory", "cpu", "io"} {
		h.write("proc/pressure/"+kind, "some avg10=1.50 avg60=0.12 avg300=0.04 total=221312\nfull avg10=0.50 avg60=0.10 avg300=0.03 total=190001\n")
	}
	h.write(fmt.Sprintf("proc/%d/mountinfo", os.Getpid()), fmt.Sprintf(mount, h.root+"/cgroup"))
	h.write("kmsg", "")
	return h
}

func (h host) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h host) files(dir string, files map[string]string) {
	h.t.Helper()
	for name, content := range files {
		h.write(filepath.Join(dir, name), content)
	}
}

// process adds one with rssMiB of anonymous memory.
func (h host) process(pid int, comm string, rssMiB int, args string) {
	h.t.Helper()
	h.files(fmt.Sprintf("proc/%d", pid), map[string]string{
		"stat":          fmt.Sprintf("%d (%s) S 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 7 0 %d 0 0 0 0\n", pid, comm, 1000+pid),
		"status":        fmt.Sprintf("Uid:\t0\t1000\t0\t0\nNSpid:\t%d\t%d\nThreads:\t7\nVmHWM:\t%d kB\nVmRSS:\t%d kB\nRssAnon:\t%d kB\nVmSwap:\t0 kB\n", pid, pid-9, rssMiB<<10, rssMiB<<10, rssMiB<<10),
		"oom_score":     "700\n",
		"oom_score_adj": "999\n",
		"wchan":         "futex_wait",
		"cmdline":       args,
		"smaps_rollup":  fmt.Sprintf("1000-f000 ---p 0 00:00 0 [rollup]\nRss: %d kB\nAnonymous: %d kB\n", rssMiB<<10, rssMiB<<10),
		"smaps":         fmt.Sprintf("1000-f000 rw-p 0 00:00 0 [heap]\nSize: 99999 kB\nRss: %d kB\n", rssMiB<<10),
	})
}

func (h host) snapshot() Snapshot {
	return Snapshot{kernelLog: filepath.Join(h.root, "kmsg")}
}

func (h host) env() *testEnv {
	e := newTestEnv(h.t)
	e.Proc = proc.FS(filepath.Join(h.root, "proc"))
	e.cg.pids = []int{10, 11, 12}
	e.cg.usage.LimitCgroup = "/kubepods/pod1"
	return e
}

const (
	v1Mount = "36 35 0:30 / %s rw - cgroup cgroup rw,memory\n40 35 0:31 / /elsewhere rw - cgroup2 cgroup2 rw\n"
	v2Mount = "40 35 0:31 / %s rw - cgroup2 cgroup2 rw\n"
)

// v1Host is a container on cgroup v1, its pod with the limit that binds, and a
// process with a hostile name and arguments.
func v1Host(t *testing.T) host {
	h := newHost(t, v1Mount)
	for dir, limit := range map[string]string{"kubepods": "9223372036854771712", "kubepods/pod1": "268435456", "kubepods/pod1/c1": "268435456"} {
		h.files("cgroup/"+dir, map[string]string{
			"memory.usage_in_bytes": "230686720\n", "memory.limit_in_bytes": limit + "\n", "memory.max_usage_in_bytes": "268435456\n",
			"memory.failcnt": "17\n", "memory.swappiness": "60\n", "memory.oom_control": "oom_kill_disable 1\nunder_oom 1\noom_kill 0\n",
			"memory.stat": "cache 1\nrss 1\ntotal_cache 20971520\ntotal_rss 205520896\ntotal_shmem 4194304\nhierarchical_memory_limit 268435456\n",
		})
	}
	h.files("cgroup/kubepods/pod1/c1/child", map[string]string{"memory.usage_in_bytes": "1048576\n", "memory.limit_in_bytes": "2097152\n", "cgroup.procs": "12\n"})
	h.process(10, "tini", 1, "tini\x00--\x00java\x00")
	h.process(11, "java", 190, "java\x00-jar\x00shop.jar\x00")
	h.process(12, "e\x1b[31m\nvil) R 1", 3, "\x1b]0;owned\x07\x00a\nb\x00"+strings.Repeat("x", 5000)+"\x00")
	h.write("kmsg", "6,1,1000000,-;something else\n") // one record: a file has no record boundaries
	return h
}

func v2Host(t *testing.T) host {
	h := newHost(t, v2Mount)
	for dir, limit := range map[string]string{"kubepods": "max", "kubepods/pod1": "268435456", "kubepods/pod1/c1": "268435456"} {
		h.files("cgroup/"+dir, map[string]string{
			"memory.current": "230686720\n", "memory.max": limit + "\n", "memory.high": "241591910\n", "memory.peak": "268435456\n",
			"memory.events": "low 0\nhigh 12\nmax 3\noom 1\noom_kill 0\n", "cgroup.events": "populated 1\nfrozen 1\n",
			"memory.pressure": "some avg10=30.00 avg60=9.00 avg300=2.00 total=1\nfull avg10=20.00 avg60=8.00 avg300=1.00 total=1\n",
			"memory.stat":     "anon 4194304\nfile 205520896\nkernel 10485760\nshmem 200000000\nsock 0\nslab_reclaimable 1048576\n",
		})
	}
	h.process(10, "redis", 2, "")
	h.process(11, "gone", 2, "")
	h.process(12, "gone", 2, "")
	for _, pid := range []string{"11", "12"} {
		if err := os.RemoveAll(filepath.Join(h.root, "proc", pid)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestSnapshotText(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*testing.T) host{"v1": v1Host, "v2": v2Host} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := make(t)
			e := h.env()
			res, err := h.snapshot().Run(t.Context(), e.Env)
			if err != nil {
				t.Fatal(err)
			}
			got := regexp.MustCompile(`(?m)^taken .*`).ReplaceAllString(e.files.read(t, "snapshot.txt"), "taken      ...")
			golden := filepath.Join("testdata", "snapshot", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s", diff)
			}
			if !strings.Contains(got, res.Summary) {
				t.Errorf("the summary is not in the text: %s", res.Summary)
			}
			var r report
			if err := json.Unmarshal([]byte(e.files.read(t, "snapshot.json")), &r); err != nil {
				t.Error(err)
			}
			if r.Levels[0].Path != "/kubepods/pod1/c1" || len(r.Levels) != 3 || r.Processes[0].RSS == 0 {
				t.Errorf("json: %+v", r)
			}
		})
	}
}

// Nothing that a container says of itself can steer a terminal or forge a line.
func TestSnapshotEscapes(t *testing.T) {
	t.Parallel()
	h := v1Host(t)
	h.write("proc/12/smaps", "1000-f000 rw-p 0 00:00 0 /a\x1b[2Jb\nRss: 1 kB\n")
	e := h.env()
	if _, err := h.snapshot().Run(t.Context(), e.Env); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"snapshot.txt", "snapshot.json"} {
		for i, r := range e.files.read(t, name) {
			if r < ' ' && r != '\n' || r == 0x7f {
				t.Errorf("%s: control character %q at %d", name, r, i)
			}
		}
		for line := range strings.Lines(e.files.read(t, name)) {
			if len(line) > 1000 {
				t.Errorf("%s: a line of %d bytes", name, len(line))
			}
		}
	}
}

// Reads that hang cost a bounded time, and what they would have told is named.
func TestSnapshotOfStuckProcesses(t *testing.T) {
	t.Parallel()
	h := v1Host(t)
	e := h.env()
	for _, pid := range e.cg.pids {
		for _, name := range []string{"cmdline", "smaps", "smaps_rollup"} {
			path := e.Proc.Path(pid, name)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
					_ = f.Close()
				}
			}()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	res, err := h.snapshot().Run(ctx, e.Env)
	if err != nil || !strings.Contains(res.Summary, "largest of 3 processes is 11 (java)") {
		t.Errorf("got %+v, %v", res, err)
	}
	text := e.files.read(t, "snapshot.txt")
	for _, want := range []string{"NOT READ", "arguments of process 11 (java): context deadline exceeded", "too many reads hang"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "deadline exceeded"); n != maxHanging {
		t.Errorf("%d reads were left hanging, want %d", n, maxHanging)
	}
}

// A snapshot with nothing to read still says what it knows and what is missing.
func TestSnapshotWithoutAnything(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(h host, e *testEnv)
		want   string
	}{
		"cgroup gone":     {func(_ host, e *testEnv) { e.cg.err = cgroup.ErrGone }, "processes: cgroup is gone"},
		"other directory": {func(_ host, e *testEnv) { e.cg.id = 1 }, "cgroup files: cgroup is gone"},
		"no mounts":       {func(h host, e *testEnv) { h.write(fmt.Sprintf("proc/%d/mountinfo", os.Getpid()), "") }, "no memory hierarchy is mounted"},
		"no kernel log":   {func(h host, e *testEnv) { _ = os.Remove(filepath.Join(h.root, "kmsg")) }, "kernel log: open"},
		"no PSI":          {func(h host, e *testEnv) { _ = os.RemoveAll(filepath.Join(h.root, "proc/pressure")) }, "node pressure:"},
		"no limit": {func(_ host, e *testEnv) {
			e.Facts.Limit, e.cg.usage.Limit = policy.NoLimit, policy.NoLimit
		}, "usage 220.0 MiB, no limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := v1Host(t)
			e := h.env()
			tc.change(h, e)
			if _, err := h.snapshot().Run(t.Context(), e.Env); err != nil {
				t.Fatal(err)
			}
			if text := e.files.read(t, "snapshot.txt"); !strings.Contains(text, tc.want) {
				t.Errorf("the text lacks %q:\n%s", tc.want, text)
			}
		})
	}
	t.Run("full disk", func(t *testing.T) {
		t.Parallel()
		h := v1Host(t)
		e := h.env()
		e.files.full = true
		res, err := h.snapshot().Run(t.Context(), e.Env)
		if err == nil || !strings.Contains(res.Summary, "usage 220.0 MiB of 256.0 MiB") {
			t.Errorf("got %+v, %v; want an error and the answer", res, err)
		}
	})
}

func TestLogFilter(t *testing.T) {
	t.Parallel()
	records := []string{
		"eth0: link up",
		"java invoked oom-killer: gfp_mask=0xcc0", "Memory cgroup stats for /other:", "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/other,task_memcg=/other,task=x,pid=5,uid=0",
		"Memory cgroup out of memory: Killed process 5 (x)",
		"java invoked oom-killer: gfp_mask=0xcc0", "anon_thp 4194304", "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/kubepods/pod1,task_memcg=/kubepods/pod1/c1,task=java,pid=11,uid=0",
		"Memory cgroup out of memory: Killed process 11 (java)",
		"x[12]: segfault, process 12",
		"/kubepods/pod10/c1 is another",
		"/x/kubepods/pod1/c1 is another",
		"Tasks in /kubepods/pod1/c1 are going to be killed",
	}
	f := logFilter{paths: limitedPaths("/kubepods/pod1/c1"), pids: map[string]bool{"11": true, "12": true}}
	for i, text := range records {
		f.add(proc.LogRecord{At: time.Duration(i), Text: text})
	}
	var got []int
	for _, l := range f.end() {
		got = append(got, int(l.SinceBoot))
	}
	if want := []int{5, 7, 8, 9, 12}; !cmp.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	for i := range 10 * maxLogLines {
		f.add(proc.LogRecord{At: time.Duration(i), Text: "process 11"})
	}
	if kept := f.end(); len(kept) != maxLogLines || kept[maxLogLines-1].SinceBoot != 10*maxLogLines-1 {
		t.Errorf("kept %d lines, want the newest %d", len(kept), maxLogLines)
	}
}
