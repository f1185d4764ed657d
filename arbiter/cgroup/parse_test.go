package cgroup

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOOMControl(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in   string
		want oomControl
		ok   bool
	}{
		{"oom_kill_disable 1\nunder_oom 0\noom_kill 3\n", oomControl{killDisabled: true, oomKill: 3}, true},
		{"oom_kill_disable 0\nunder_oom 1\n", oomControl{underOOM: true}, true}, // before 4.13
		{"oom_kill_disable 0\nnew_key 7\n", oomControl{}, true},
		{"under_oom 1\n", oomControl{}, false},
		{"oom_kill_disable x\n", oomControl{}, false},
		{"oom_kill_disable\n", oomControl{}, false},
		{"", oomControl{}, false},
	} {
		got, err := parseOOMControl([]byte(test.in))
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("%q: %+v, %v", test.in, got, err)
		}
	}
}

func TestParseMemoryStat(t *testing.T) {
	t.Parallel()
	got, err := parseMemoryStat([]byte("rss 1\ntotal_rss 2\ntotal_active_file 3\ntotal_inactive_file 4\ntotal_swap 5\nactive_file 9\n"))
	want := memoryStat{rss: 2, activeFile: 3, inactiveFile: 4, swap: 5}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseMountinfo(t *testing.T) {
	t.Parallel()
	const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
38 31 0:35 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	const pure = "25 23 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	const spaced = `25 23 0:22 / /srv/c\040g rw - cgroup2 cgroup2 rw` + "\n"
	for _, test := range []struct {
		name, in, root string
		want           mounts
	}{
		{"hybrid", hybrid, "/sys/fs/cgroup", mounts{memory: "/sys/fs/cgroup/memory", freezer: "/sys/fs/cgroup/freezer", unified: "/sys/fs/cgroup/unified"}},
		{"trailing slash", hybrid, "/sys/fs/cgroup/", mounts{memory: "/sys/fs/cgroup/memory", freezer: "/sys/fs/cgroup/freezer", unified: "/sys/fs/cgroup/unified"}},
		{"only one", hybrid, "/sys/fs/cgroup/unified", mounts{unified: "/sys/fs/cgroup/unified"}},
		{"a prefix of a name", hybrid, "/sys/fs/cg", mounts{}},
		{"v2", pure, "/sys/fs/cgroup", mounts{unified: "/sys/fs/cgroup"}},
		{"a space", spaced, "/srv", mounts{unified: "/srv/c g"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			entries, err := parseMountinfo(strings.NewReader(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if got := pickMounts(entries, test.root); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
	if _, err := parseMountinfo(strings.NewReader("nonsense\n")); err == nil {
		t.Error("nonsense was parsed")
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	line := "4213 (a) b (c) D 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20\n"
	got, err := parseStat([]byte(line))
	if want := (procStat{state: 'D', parent: 1, start: 987654}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2", "1 (x) SS " + strings.Repeat("1 ", 30)} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestParseMembership(t *testing.T) {
	t.Parallel()
	got, err := parseMembership([]byte("8:cpu,memory:/a/b\n6:freezer:/f:1\n1:name=systemd:/s\n0::/u (deleted)\n"))
	if want := (membership{memory: "/a/b", freezer: "/f:1", unified: "/u"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestGlobRegexp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern, root string
		yes, no       []string
	}{
		{"/system.slice/*.service", "/system.slice", []string{"/system.slice/a.service"}, []string{"/system.slice/a/b.service", "/system.slice/a.servicex"}},
		{"/kubepods/**", "/kubepods", []string{"/kubepods/a", "/kubepods/a/b"}, []string{"/kubepods", "/kubepodsx/a"}},
		{"/a/**/b", "/a", []string{"/a/b", "/a/x/b", "/a/x/y/b"}, []string{"/a/xb", "/ab"}},
		{`/x/a\x2db.scope`, `/x/a\x2db.scope`, []string{`/x/a\x2db.scope`}, []string{"/x/a-b.scope"}},
		{"/pod?/c", "/", []string{"/pod1/c"}, []string{"/pod/c", "/pod12/c"}},
	} {
		re, err := globRegexp(test.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := globRoot(test.pattern); got != test.root {
			t.Errorf("%s: root %s", test.pattern, got)
		}
		for _, p := range test.yes {
			if !re.MatchString(p) {
				t.Errorf("%s does not match %s", test.pattern, p)
			}
		}
		for _, p := range test.no {
			if re.MatchString(p) {
				t.Errorf("%s matches %s", test.pattern, p)
			}
		}
	}
	if _, err := globRegexp("relative/*"); err == nil {
		t.Error("a relative pattern was taken")
	}
}

func TestRecordOurs(t *testing.T) {
	t.Parallel()
	r := &Record{}
	r.intend("memory.limit_in_bytes", "1000000", "2000000")
	r.intendNudge("memory.limit_in_bytes", 2000000, 2004096)
	f := r.Fields["memory.limit_in_bytes"]
	for shown, want := range map[string]bool{
		"1000000": false, // the original
		"2000000": true,
		"2004096": true,
		"2065536": true,  // the last nudge of the range
		"2069632": false, // one too far
		"2004097": false, // no nudge
		"3000000": false, // somebody else's
		"max":     false,
	} {
		if got := f.ours(shown); got != want {
			t.Errorf("%s is ours: %v", shown, got)
		}
	}
	// Usage above the limit: the kernel takes a raise from there on only.
	r.intendNudge("memory.limit_in_bytes", 2065536, 2999424)
	for _, shown := range []string{"2004096", "2065536", "2999424", "3060864"} {
		if !f.ours(shown) {
			t.Errorf("%s is not ours", shown)
		}
	}
	if f.ours("3064960") {
		t.Error("one too far is ours")
	}
	for i := range 100 { // the history is bounded, and keeps the newest
		r.intend("memory.limit_in_bytes", "0", strings.Repeat("9", i+1))
	}
	if len(f.Ours) > fieldHistory || !f.ours(strings.Repeat("9", 100)) || f.Original != "1000000" {
		t.Errorf("history %v", f.Ours)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	d, err := openDir(t.TempDir(), "/")
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	want := &Record{
		Version:  recordVersion,
		Fields:   map[string]*Field{"memory.max": {Original: "max", Ours: []string{"4096"}}},
		Borrowed: 7, Inherited: true, Flagged: []string{"a/b"},
		Freeze: &FreezeRecord{Kind: freezeOwn, Path: "/x", Origin: "/", Moved: []Moved{{Process{1, 2}, "/y"}}},
		Scores: &ScoreRecord{Base: 0, Except: []Score{{Process{3, 4}, -998}}},
	}
	if err := d.setRecord(want); err != nil {
		t.Skip("needs kernel feature: trusted xattrs on the temporary directory")
	}
	got, err := d.record()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := d.dropRecord(); err != nil {
		t.Error(err)
	}
	if got, err := d.record(); got != nil || err != nil {
		t.Errorf("after removal: %v, %v", got, err)
	}
	if err := d.dropRecord(); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	big := &Record{Flagged: []string{strings.Repeat("x", recordMax)}}
	if err := d.setRecord(big); err == nil {
		t.Error("a record that does not fit was written")
	}
}

// The fuzz targets share one invariant: a value or an error, and no panic.

func FuzzParseOOMControl(f *testing.F) {
	f.Add([]byte("oom_kill_disable 1\nunder_oom 0\noom_kill 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseOOMControl(b); err != nil && c != (oomControl{}) {
			t.Errorf("%+v beside %v", c, err)
		}
	})
}

func FuzzParseMemoryStat(f *testing.F) {
	f.Add([]byte("total_rss 2\ntotal_active_file 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseMemoryStat(b); err != nil && s != (memoryStat{}) {
			t.Errorf("%+v beside %v", s, err)
		}
	})
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add([]byte(`25 23 0:22 / /srv/c\040g rw - cgroup2 cgroup2 rw` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseMountinfo(bytes.NewReader(b)); err != nil && m != nil {
			t.Errorf("%+v beside %v", m, err)
		}
	})
}

func FuzzParsePids(f *testing.F) {
	f.Add([]byte("1\n0\n22\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pids, err := parsePids(b)
		if err != nil && pids != nil {
			t.Errorf("%v beside %v", pids, err)
		}
		for _, p := range pids {
			if p <= 0 {
				t.Errorf("pid %d", p)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("4213 (a) b (c) D 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err != nil && s != (procStat{}) {
			t.Errorf("%+v beside %v", s, err)
		}
	})
}

func FuzzParseMembership(f *testing.F) {
	f.Add([]byte("8:cpu,memory:/a/b\n0::/u (deleted)\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseMembership(b); err != nil && m != (membership{}) {
			t.Errorf("%+v beside %v", m, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"v":1,"fields":{"memory.max":{"orig":"max","ours":["4096"]}},"freeze":{"kind":"freezer","path":"/x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRecord(b); (r == nil) == (err == nil) {
			t.Errorf("%+v beside %v", r, err)
		}
	})
}

func FuzzGlobRegexp(f *testing.F) {
	f.Add("/kubepods/**/pod*/?", "/kubepods/x/pod1/c")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		re, err := globRegexp(pattern)
		if (re == nil) == (err == nil) {
			t.Fatalf("%v beside %v", re, err)
		}
		if re != nil {
			re.MatchString(path)
			globRoot(pattern)
		}
	})
}

func TestSelfMountinfo(t *testing.T) {
	t.Parallel()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := parseMountinfo(f); err != nil {
		t.Error(err)
	}
}
