package cgroup

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRungsFor(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, test := range []struct {
		limit uint64
		gaps  []uint64 // MiB below the limit
	}{
		{8 * mib, nil}, // too small for the kernel's batches
		{16 * mib, []uint64{1}},
		{64 * mib, []uint64{4, 2, 1}},
		{256 * mib, []uint64{16, 8, 4, 2, 1}},
		{64 << 30, []uint64{16, 8, 4, 2, 1}},
	} {
		var gaps []uint64
		for _, r := range rungsFor(test.limit) {
			gaps = append(gaps, (test.limit-r.usage)/mib)
		}
		if diff := cmp.Diff(test.gaps, gaps); diff != "" {
			t.Errorf("limit %d MiB: %s", test.limit/mib, diff)
		}
	}
}

func TestLadder(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	type look struct {
		ms    float64 // since the start
		usage uint64  // MiB
		cache uint64  // MiB of it
		held  bool
	}
	for _, test := range []struct {
		name  string
		looks []look
	}{
		{"fast and straight", []look{{0, 240, 0, false}, {4, 244, 0, false}, {8, 248, 0, false}, {12, 252, 0, true}}},
		{"very fast", []look{{0, 240, 0, false}, {2, 248, 0, true}}},
		{"slow", []look{{0, 240, 0, false}, {100, 248, 0, false}, {150, 252, 0, false}, {180, 254, 0, false}, {200, 255, 0, false}}},
		{"fast, but page cache", []look{{0, 240, 200, false}, {2, 248, 208, false}, {3, 252, 212, false}, {4, 255, 215, false}}},
		{"breathing", []look{
			{0, 230, 0, false}, {1, 241, 0, false}, {50, 230, 0, false}, {100, 241, 0, false},
			{101, 247, 0, false}, {102, 230, 0, false}, {103, 241, 0, false},
		}},
		{"a rung that was left downwards is spent", []look{
			{0, 240, 0, false}, {100, 248, 0, false}, {150, 239, 0, false}, {151, 248, 0, false}, {152, 252, 0, true},
		}},
		{"as high and as fast as before", []look{
			{0, 241, 0, false}, {50, 249, 0, false}, {60, 230, 0, false}, {61, 241, 0, false}, {62, 249, 0, false},
		}},
		{"nothing known before", []look{{0, 255, 0, false}}},
		{"two looks at once", []look{{0, 240, 0, false}, {0, 248, 0, false}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := &ladder{limit: 256 * mib, rungs: rungsFor(256 * mib)}
			start := time.Unix(1000, 0)
			for _, k := range test.looks {
				now := height{start.Add(time.Duration(k.ms * float64(time.Millisecond))), k.usage * mib}
				held := false
				if before, judge := l.step(now); judge {
					_, held = l.near(before, now, (k.usage-k.cache)*mib)
				}
				if held != k.held {
					t.Errorf("at %v ms and %d MiB: held %v, want %v", k.ms, k.usage, held, k.held)
				}
			}
		})
	}
}
