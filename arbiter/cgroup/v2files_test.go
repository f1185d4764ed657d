package cgroup

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/arbiterd/arbiter/policy"
)

const (
	sampleEvents   = "low 0\nhigh 4488\nmax 12\noom 1\noom_kill 2\noom_group_kill 0\n"
	sampleStat     = "anon 4096\nfile 40960\nactive_file 100\ninactive_file 20\nslab_reclaimable 3\nslab 9\n"
	sampleCgEvents = "populated 1\nfrozen 1\n"
	samplePressure = "some avg10=1.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
)

func TestParseV2Files(t *testing.T) {
	t.Parallel()
	if got, err := parseMemoryEvents([]byte(sampleEvents)); err != nil || got != (memoryEvents{high: 4488, max: 12, oom: 1, oomKill: 2}) {
		t.Errorf("memory.events: %+v, %v", got, err)
	}
	if got, err := parseReclaimable([]byte(sampleStat)); err != nil || got != 123 {
		t.Errorf("memory.stat: %d, %v", got, err)
	}
	if got, err := parseCgroupEvents([]byte(sampleCgEvents)); err != nil || got != (cgroupEvents{populated: true, frozen: true}) {
		t.Errorf("cgroup.events: %+v, %v", got, err)
	}
	if got, err := parsePressure([]byte(samplePressure)); err != nil || got != (pressure{someMicros: 12, fullMicros: 7}) {
		t.Errorf("memory.pressure: %+v, %v", got, err)
	}
	for word, want := range map[string]policy.Limit{"max": policy.NoLimit, "4096": policy.LimitOf(4096), "0": policy.LimitOf(0)} {
		if got, err := parseMax(word); err != nil || got != want {
			t.Errorf("parseMax(%q) = %v, %v", word, got, err)
		}
	}
	for _, bad := range []string{"high\n", "high x\n", "high -1\n"} {
		if _, err := parseMemoryEvents([]byte(bad)); err == nil {
			t.Errorf("memory.events %q is taken", bad)
		}
	}
}

func TestMostCommonScore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scores map[int]int
		want   int
	}{
		{map[int]int{1: 0, 2: 0, 3: 500}, 0},
		{map[int]int{1: 500, 2: 900}, 500},
		{map[int]int{1: scoreExempt, 2: scoreExempt, 3: 7}, 7},
		{map[int]int{1: scoreExempt}, 0},
	} {
		if got := mostCommon(tt.scores); got != tt.want {
			t.Errorf("mostCommon(%v) = %d, want %d", tt.scores, got, tt.want)
		}
	}
}

func TestScoreRecordReplaces(t *testing.T) {
	t.Parallel()
	var r ScoreRecord
	r.set(Score{Process: Process{Pid: 1, Start: 2}, Adj: 3})
	r.set(Score{Process: Process{Pid: 1, Start: 9}, Adj: 4}) // the pid came again
	r.set(Score{Process: Process{Pid: 1, Start: 2}, Adj: 5})
	want := []Score{{Process{1, 2}, 5}, {Process{1, 9}, 4}}
	if diff := cmp.Diff(want, r.Except); diff != "" {
		t.Error(diff)
	}
}

// FuzzV2Files: every parser gives a value or an error, and never panics.
func FuzzV2Files(f *testing.F) {
	for _, s := range []string{sampleEvents, sampleStat, sampleCgEvents, samplePressure, "max", "", "\n", "a 1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := parseMemoryEvents(b); err != nil && e != (memoryEvents{}) {
			t.Errorf("memory.events: %+v and %v", e, err)
		}
		if n, err := parseReclaimable(b); err != nil && n != 0 {
			t.Errorf("memory.stat: %d and %v", n, err)
		}
		if e, err := parseCgroupEvents(b); err != nil && e != (cgroupEvents{}) {
			t.Errorf("cgroup.events: %+v and %v", e, err)
		}
		if p, err := parsePressure(b); err != nil && p != (pressure{}) {
			t.Errorf("memory.pressure: %+v and %v", p, err)
		}
		if l, err := parseMax(string(b)); err != nil && l != policy.NoLimit {
			t.Errorf("limit: %v and %v", l, err)
		}
	})
}
