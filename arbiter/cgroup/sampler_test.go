package cgroup

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestInterval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		real, limit uint64
		left, want  time.Duration
	}{
		{"far and quiet", 100 * mib, 1000 * mib, -1, sampleLatest},
		{"no limit", 100 * mib, 0, -1, sampleLatest},
		{"near", 900 * mib, 1000 * mib, -1, time.Second},
		{"very near", 999 * mib, 1000 * mib, -1, sampleSoonest},
		{"beyond", 1100 * mib, 1000 * mib, 0, sampleSoonest},
		{"far, growing fast", 100 * mib, 1000 * mib, 8 * time.Second, time.Second},
		{"far, growing slowly", 100 * mib, 1000 * mib, time.Hour, sampleLatest},
	} {
		got := interval(tt.real, tt.limit, tt.left).Round(time.Millisecond)
		if got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Many cgroups cost no more wake-ups than one grid has points.
func TestSamplerSharesWakeUps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSampler()
		ctx, cancel := context.WithCancel(t.Context())
		go s.run(ctx)
		looks, wakes := 0, map[time.Time]bool{}
		for i := range 1000 {
			s.add(i, func(now time.Time) time.Duration {
				looks++
				wakes[now] = true
				return 5 * time.Second
			})
			time.Sleep(7 * time.Millisecond)
		}
		looks, wakes = 0, map[time.Time]bool{}
		time.Sleep(60 * time.Second)
		synctest.Wait()
		if looks < 11000 || looks > 15000 {
			t.Errorf("%d looks in a minute at 1000 cgroups, want 12000 to 15000", looks)
		}
		if most := int(time.Minute/sampleCoarse) + 1; len(wakes) > most {
			t.Errorf("%d wake-ups in a minute, at most %d wanted", len(wakes), most)
		}
		cancel()
		synctest.Wait()
	})
}

func TestSamplerHurriesAndEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSampler()
		ctx, cancel := context.WithCancel(t.Context())
		go s.run(ctx)
		looks := 0
		s.add("a", func(time.Time) time.Duration { looks++; return time.Hour })
		ended := 0
		s.add("b", func(time.Time) time.Duration { ended++; return 0 })
		time.Sleep(time.Second)
		s.hurry("a", 300*time.Millisecond)
		s.hurry("nobody", 0)
		time.Sleep(time.Second)
		if looks != 2 || ended != 1 {
			t.Errorf("%d looks, want 2; %d at what ended, want 1", looks, ended)
		}
		s.remove("a")
		time.Sleep(time.Hour)
		if looks != 2 {
			t.Errorf("%d looks after the removal", looks)
		}
		cancel()
		synctest.Wait()
	})
}

func TestPressedOverASpan(t *testing.T) {
	t.Parallel()
	p := &pressed{over: 10 * time.Second}
	for i, micros := range []uint64{0, 0, 0, 1e6, 3e6, 5e6} { // every 2.5 s
		share, known := p.add(stall{at(i * 2500), micros})
		wantKnown := i >= 4
		want := map[int]float64{4: 30, 5: 50}[i]
		if known != wantKnown || share != want {
			t.Errorf("reading %d: %.0f%%, %v; want %.0f%%, %v", i, share, known, want, wantKnown)
		}
	}
}
