package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tree is a /proc with one process, 42.
func tree(t *testing.T, files map[string]string) FS {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return FS(root)
}

const statLine = "42 (evil) R 9 (x\n) S 1 42 42 0 -1 4194560 6000 0 2 0 11 12 0 0 20 0 7 0 98765 10000 300 18446744073709551615 1 1\n"

const statusText = `Name:	app
Umask:	0022
Uid:	1000	1001	1002	1003
Gid:	5	6	7	8
NSpid:	42	7	1
VmSize:	  100000 kB
VmHWM:	     300 kB
VmRSS:	    200 kB
RssAnon:	     120 kB
RssFile:	      60 kB
RssShmem:	      20 kB
VmSwap:	       4 kB
Threads:	7
SigBlk:	0000000000000001
SigIgn:	0000000000001000
SigCgt:	2000000181005ccf
CapEff:	000001ffffffffff
NoNewPrivs:	1
Seccomp:	2
`

func TestStat(t *testing.T) {
	t.Parallel()
	got, err := tree(t, map[string]string{"42/stat": statLine}).Stat(42)
	want := Stat{Comm: "evil) R 9 (x\n", State: 'S', PPid: 1, Threads: 7, Start: 98765}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42", "42 (a", "42 )a( S 1", "42 (a) S 1 2", strings.Replace(statLine, "98765", "x", 1), strings.Replace(statLine, ") S", ") SS", 1)} {
		if got, err := parseStat(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	got, err := tree(t, map[string]string{"42/status": statusText}).Status(42)
	want := Status{
		UIDs: [4]int{1000, 1001, 1002, 1003}, GIDs: [4]int{5, 6, 7, 8}, NSPids: []int{42, 7, 1}, Threads: 7,
		VmSize: 100000 << 10, VmHWM: 300 << 10, VmRSS: 200 << 10, VmSwap: 4 << 10,
		RssAnon: 120 << 10, RssFile: 60 << 10, RssShmem: 20 << 10,
		SigBlocked: 1, SigIgnored: 0x1000, SigCaught: 0x2000000181005ccf, CapEffective: 0x1ffffffffff, NoNewPrivs: 1, Seccomp: 2,
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"", "Name:\tx\n", "Uid:\t1\n", "Uid:\t1 2 3 x\n", statusText + "VmRSS:\t12 MB\n", statusText + "VmRSS:\t99999999999999999 kB\n", statusText + "SigCgt: zz\n"} {
		if got, err := parseStatus(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

func TestSmallFiles(t *testing.T) {
	t.Parallel()
	fs := tree(t, map[string]string{
		"42/oom_score": "667\n", "42/oom_score_adj": "-998\n", "42/wchan": "futex_wait", "43/wchan": "0",
		"42/comm": "a b\n", "42/cmdline": "java\x00-jar\x00\x00a b\x00", "43/cmdline": "", "44/cmdline": "title of its own",
	})
	score, err1 := fs.OOMScore(42)
	adj, err2 := fs.OOMScoreAdj(42)
	wchan, err3 := fs.Wchan(42)
	none, err4 := fs.Wchan(43)
	comm, err5 := fs.Comm(42)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	if score != 667 || adj != -998 || wchan != "futex_wait" || none != "" || comm != "a b" {
		t.Errorf("got %d %d %q %q %q", score, adj, wchan, none, comm)
	}
	for pid, want := range map[int][]string{42: {"java", "-jar", "", "a b"}, 43: nil, 44: {"title of its own"}} {
		if got, err := fs.Cmdline(t.Context(), pid); err != nil || !cmp.Equal(got, want) {
			t.Errorf("cmdline %d: got %q, %v; want %q", pid, got, err, want)
		}
	}
}

func TestCgroups(t *testing.T) {
	t.Parallel()
	fs := tree(t, map[string]string{
		"1/cgroup": "9:memory:/kubepods/a:b\n4:cpu,cpuacct:/\n1:name=systemd:/x\n0::/unified\n",
		"2/cgroup": "0::/system.slice/x.service (deleted)\n",
	})
	for pid, want := range map[int]string{1: "/kubepods/a:b", 2: "/system.slice/x.service"} {
		ms, err := fs.Cgroups(pid)
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := Memory(ms); !ok || m.Path != want {
			t.Errorf("pid %d: got %+v, %v; want %s", pid, m, ok, want)
		}
	}
	if _, ok := Memory([]Membership{{Controllers: []string{"cpu"}, Path: "/"}}); ok {
		t.Error("found memory where there is none")
	}
	if _, err := parseCgroup(strings.NewReader("9:memory\n")); err == nil {
		t.Error("want an error for a line without a path")
	}
}

const smapsText = `7f0000000000-7f0000021000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Rss:                  12 kB
Pss:                  12 kB
Anonymous:            12 kB
Swap:                  8 kB
VmFlags: rd wr mr mw me ac sd 
7f0000100000-7f0000200000 r--s 00000000 fe:00 1234   /a b-c\012d (deleted)
Size:               1024 kB
Rss:                 700 kB
THPeligible:           0
VmFlags: rd mr
7f0000300000-7f0000400000 rw-p 00000000 00:00 0 
Size:               1024 kB
Rss:                 700 kB
`

func TestLargestMappings(t *testing.T) {
	t.Parallel()
	fs := tree(t, map[string]string{"42/smaps": smapsText, "42/smaps_rollup": "7f0000000000-7fff00000000 ---p 00000000 00:00 0      [rollup]\nRss:  1412 kB\nSwap: 8 kB\n", "43/smaps_rollup": ""})
	got, err := fs.LargestMappings(t.Context(), 42, 2)
	want := []Mapping{
		{Start: 0x7f0000100000, End: 0x7f0000200000, Perms: "r--s", Name: `/a b-c\012d (deleted)`, Size: 1 << 20, Rss: 700 << 10},
		{Start: 0x7f0000300000, End: 0x7f0000400000, Perms: "rw-p", Size: 1 << 20, Rss: 700 << 10},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	sum, err := fs.SmapsRollup(t.Context(), 42)
	if err != nil || sum.Rss != 1412<<10 || sum.Swap != 8<<10 {
		t.Errorf("rollup: got %+v, %v", sum, err)
	}
	if sum, err := fs.SmapsRollup(t.Context(), 43); err == nil {
		t.Errorf("empty rollup (a zombie): got %+v, want an error", sum)
	}
	if _, err := parseSmaps(strings.NewReader("Rss: 1 kB\n"), 1); err == nil {
		t.Error("want an error for a size without a mapping")
	}
}

func TestNamespaceAndMounts(t *testing.T) {
	t.Parallel()
	fs := tree(t, map[string]string{"42/mountinfo": `36 35 0:30 / /sys/fs/cgroup/memory rw,relatime shared:15 - cgroup cgroup rw,memory
40 36 8:1 /a\040b /mnt\134x ro master:1 propagate_from:2 - ext4 /dev/sda1 rw
41 36 0:9 / /y rw - tmpfs none
`})
	got, err := fs.Mounts(42)
	want := []Mount{
		{ID: 36, Parent: 35, Root: "/", Point: "/sys/fs/cgroup/memory", Options: "rw,relatime", FSType: "cgroup", Source: "cgroup", Super: "rw,memory"},
		{ID: 40, Parent: 36, Root: "/a b", Point: `/mnt\x`, Options: "ro", FSType: "ext4", Source: "/dev/sda1", Super: "rw"},
		{ID: 41, Parent: 36, Root: "/", Point: "/y", Options: "rw", FSType: "tmpfs", Source: "none"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := os.MkdirAll(fs.Path(42, "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]uint64{"net:[4026531840]": 4026531840, "net:[x]": 0, "net": 0, "net:[1": 0} {
		path := fs.Path(42, "ns", "net")
		_ = os.Remove(path)
		if err := os.Symlink(link, path); err != nil {
			t.Fatal(err)
		}
		if got, err := fs.Namespace(42, "net"); got != want || (err == nil) != (want > 0) {
			t.Errorf("%s: got %d, %v", link, got, err)
		}
	}
}

func TestPressureAndMeminfo(t *testing.T) {
	t.Parallel()
	fs := tree(t, map[string]string{
		"pressure/memory": "some avg10=1.50 avg60=0.12 avg300=0.04 total=221312\nfull avg10=0.50 avg60=0.10 avg300=0.03 total=190001\n",
		"meminfo":         "MemTotal:       24000 kB\nMemFree: 10 kB\nMemAvailable:   12000 kB\nHugePages_Total:       0\nDirty: 4 kB\n",
	})
	p, err := fs.NodePressure("memory")
	want := Pressure{Some: Stall{1.5, .12, .04, 221312 * time.Microsecond}, Full: Stall{.5, .1, .03, 190001 * time.Microsecond}}
	if err != nil || p != want {
		t.Errorf("got %+v, %v", p, err)
	}
	m, err := fs.Meminfo()
	if err != nil || m != (Meminfo{Total: 24000 << 10, Free: 10 << 10, Available: 12000 << 10, Dirty: 4 << 10}) {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, bad := range []string{"", "x", "some avg10=x total=1\n", "some total=99999999999999999999\n"} {
		if got, err := ParsePressure(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

// A process that is gone is an outcome that callers tell apart.
func TestGone(t *testing.T) {
	t.Parallel()
	fs := FS(t.TempDir())
	ctx := t.Context()
	for name, read := range map[string]func() error{
		"stat":    func() error { _, err := fs.Stat(7); return err },
		"status":  func() error { _, err := fs.Status(7); return err },
		"cmdline": func() error { _, err := fs.Cmdline(ctx, 7); return err },
		"smaps":   func() error { _, err := fs.LargestMappings(ctx, 7, 1); return err },
		"ns":      func() error { _, err := fs.Namespace(7, "net"); return err },
		"cgroup":  func() error { _, err := fs.Cgroups(7); return err },
		"score":   func() error { _, err := fs.OOMScore(7); return err },
	} {
		if err := read(); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "process 7") {
			t.Errorf("%s: got %v, want ErrGone of process 7", name, err)
		}
	}
}

// A file that never answers (here a FIFO that nobody writes to) must not hold
// its reader.
func TestAbandonsStuckReads(t *testing.T) {
	t.Parallel()
	fs := tree(t, map[string]string{"42/stat": statLine})
	for _, name := range []string{"cmdline", "smaps", "smaps_rollup"} {
		mkfifo(t, fs.Path(42, name))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err1 := fs.Cmdline(ctx, 42)
	_, err2 := fs.LargestMappings(ctx, 42, 3)
	_, err3 := fs.SmapsRollup(ctx, 42)
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
	}
}

// fuzzParser holds a parser to "value xor error, no panic".
func fuzzParser[T any](f *testing.F, parse func(io.Reader) (T, error), seeds ...string) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parse(strings.NewReader(text))
		var zero T
		if err != nil && fmt.Sprintf("%#v", v) != fmt.Sprintf("%#v", zero) {
			t.Errorf("value %+v and error %v", v, err)
		}
	})
}

func FuzzStat(f *testing.F)     { fuzzParser(f, parseStat, statLine, "1 ()) S") }
func FuzzStatus(f *testing.F)   { fuzzParser(f, parseStatus, statusText) }
func FuzzCgroup(f *testing.F)   { fuzzParser(f, parseCgroup, "9:memory:/a\n0::/\n") }
func FuzzMounts(f *testing.F)   { fuzzParser(f, parseMounts, "1 2 0:3 / /x rw - t s o\n") }
func FuzzPressure(f *testing.F) { fuzzParser(f, ParsePressure, "some avg10=1 total=2\n") }
func FuzzMeminfo(f *testing.F)  { fuzzParser(f, parseMeminfo, "MemTotal: 1 kB\n") }
func FuzzCmdline(f *testing.F)  { fuzzParser(f, parseCmdline, "a\x00b\x00") }
func FuzzSmaps(f *testing.F) {
	fuzzParser(f, func(r io.Reader) ([]Mapping, error) { return parseSmaps(r, 3) }, smapsText)
}
