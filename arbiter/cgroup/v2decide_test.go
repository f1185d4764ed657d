package cgroup

import (
	"testing"
	"time"
)

// at is a moment in milliseconds after an arbitrary origin.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestBandOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ limit, base, top uint64 }{
		{256 * mib, 241591910 &^ 4095, 251658240 + 0},
		{32 * mib, 24 * mib, 27 * mib},
		{128 * mib, 112 * mib, 118 * mib},
		{64 << 30, 64<<30 - 512*mib, 64<<30 - 320*mib},
	} {
		b := bandOf(tt.limit)
		if tt.limit == 256*mib {
			// 10 % of it, and 16 MiB, the values that were measured.
			tt.top = pageFloor(tt.limit - tt.limit/10/8*5)
		}
		if b.base != tt.base || b.top != tt.top {
			t.Errorf("bandOf(%d) = %d, %d; want %d, %d", tt.limit, b.base, b.top, tt.base, tt.top)
		}
		if b.base >= b.top || b.top >= b.limit {
			t.Errorf("bandOf(%d) = %+v: not in order", tt.limit, b)
		}
	}
}

func TestOnHigh(t *testing.T) {
	t.Parallel()
	b := bandOf(256 * mib) // base 230.4, top 240 MiB
	type past struct{ ms, mib int }
	tests := []struct {
		name string
		past []past // before the event, which is at 10 000 ms
		high uint64
		now  int // MiB
		want guardKind
	}{
		{"page cache", []past{{5000, 5}, {9000, 5}}, b.base, 6, stay},
		{"cache beside a large steady heap", []past{{5000, 180}, {9000, 180}}, b.base, 180, stay},
		{"slow growth", []past{{5000, 228}, {9000, 230}}, b.base, 231, raiseHigh},
		{"steady, squeezed cache", []past{{5000, 220}, {9000, 220}}, b.base, 220, raiseHigh},
		{"fast growth", []past{{9000, 150}, {9700, 210}}, b.base, 231, standGuard},
		{"fast growth far from the limit", []past{{9700, 10}}, b.base, 100, stay},
		{"sudden, after a long pause", []past{{1000, 20}}, b.base, 231, standGuard},
		{"a little, after a long pause", []past{{1000, 229}}, b.base, 231, raiseHigh},
		{"nothing known", nil, b.base, 231, raiseHigh},
		{"a burst of the last moment is no slope", []past{{9000, 230}, {9990, 226}}, b.base, 231, raiseHigh},
		{"at the top", []past{{5000, 238}, {9000, 239}}, b.top, 240, standGuard},
		{"steady under the top, cache fills the rest", []past{{5000, 235}, {9000, 235}}, b.top, 235, stay},
		{"throttled under a lower high of somebody else", []past{{5000, 126}, {9000, 126}}, 128 * mib, 128, raiseHigh},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var tr trail
			for _, p := range tt.past {
				tr.add(reading{at(p.ms), uint64(p.mib) * mib})
			}
			got := onHigh(b, tt.high, &tr, reading{at(10000), uint64(tt.now) * mib})
			if got.kind != tt.want {
				t.Fatalf("kind %d (%s), want %d", got.kind, got.why, tt.want)
			}
			if got.kind == raiseHigh && (got.high <= tt.high || got.high > b.top) {
				t.Errorf("high goes from %d to %d, top %d", tt.high, got.high, b.top)
			}
		})
	}
}

func TestHalfwayEndsAtTheTop(t *testing.T) {
	t.Parallel()
	b := bandOf(256 * mib)
	high, steps := b.base, 0
	for high < b.top {
		if next := halfway(high, b.top); next > high {
			high = next
		} else {
			t.Fatalf("stuck at %d", high)
		}
		if steps++; steps > 8 {
			t.Fatalf("%d steps", steps)
		}
	}
}

func TestWhileGuarded(t *testing.T) {
	t.Parallel()
	b := bandOf(256 * mib)
	tests := []struct {
		name  string
		since int   // ms
		past  []int // MiB, every 250 ms up to 10 000
		now   int
		want  guardKind
	}{
		{"just now", 9500, []int{235, 235, 235}, 235, stay},
		{"growth ended", 8000, []int{235, 235, 235, 235, 235}, 235, letGo},
		{"above the top", 8000, []int{245, 245, 245, 245, 245}, 245, stay},
		{"was above the top a moment ago", 8000, []int{235, 235, 245, 235, 235}, 235, stay},
		{"still growing", 8000, []int{180, 190, 200, 210, 220}, 230, stay},
		{"falling", 8000, []int{250, 200, 150, 100, 90}, 80, letGo},
		{"fell", 5000, []int{250, 200, 80, 80, 80, 80, 80}, 80, letGo},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var tr trail
			for i, v := range tt.past {
				tr.add(reading{at(10000 - 250*(len(tt.past)-i)), uint64(v) * mib})
			}
			got := whileGuarded(b, at(tt.since), &tr, reading{at(10000), uint64(tt.now) * mib})
			if got.kind != tt.want {
				t.Fatalf("kind %d (%s), want %d", got.kind, got.why, tt.want)
			}
			if got.kind == letGo && got.high < uint64(tt.now)*mib {
				t.Errorf("memory.high %d is under usage %d MiB: it would throttle", got.high, tt.now)
			}
		})
	}
}

func TestWhileIdle(t *testing.T) {
	t.Parallel()
	b := bandOf(256 * mib)
	series := func(to int, values ...int) *trail {
		var tr trail
		for i, v := range values {
			tr.add(reading{at(to - 1000*(len(values)-i)), uint64(v) * mib})
		}
		return &tr
	}
	for _, tt := range []struct {
		name string
		high uint64
		past *trail
		now  int
		want guardKind
	}{
		{"quiet", b.base, series(10000, 100, 100), 100, stay},
		{"high stays above the peak of the last seconds", b.top, series(10000, 236, 100, 100), 100, stay},
		{"high comes down after them", b.top, series(30000, 236, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100), 100, lowerHigh},
		{"fast growth that nothing announced", b.base, series(10000, 150), 225, standGuard},
		{"fast growth far below", b.base, series(10000, 20), 150, stay},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now := tt.past.readings[len(tt.past.readings)-1].at.Add(time.Second)
			if got := whileIdle(b, tt.high, tt.past, reading{now, uint64(tt.now) * mib}); got.kind != tt.want {
				t.Errorf("kind %d (%s), want %d", got.kind, got.why, tt.want)
			}
		})
	}
}

func TestOnCache(t *testing.T) {
	t.Parallel()
	b := bandOf(256 * mib)
	for _, tt := range []struct {
		name      string
		past, now int // MiB, a second apart
		want      guardKind
	}{
		{"nothing but cache", 20, 21, stay},
		{"real memory grows slowly", 150, 152, stay},
		{"real memory grows fast", 60, 170, standGuard},
		{"no cache is left", 210, 211, standGuard},
	} {
		var tr trail
		tr.add(reading{at(1000), uint64(tt.past) * mib})
		if got := onCache(b, &tr, reading{at(2000), uint64(tt.now) * mib}); got.kind != tt.want {
			t.Errorf("%s: kind %d (%s), want %d", tt.name, got.kind, got.why, tt.want)
		}
	}
}

func TestTrailIsBounded(t *testing.T) {
	t.Parallel()
	var tr trail
	for ms := range 60000 {
		tr.add(reading{at(ms), uint64(ms)})
	}
	if n := len(tr.readings); n > 200 {
		t.Errorf("%d readings kept", n)
	}
	if got := tr.peak(at(0)); got != 59999 {
		t.Errorf("peak %d", got)
	}
	if s, ok := tr.slope(reading{at(60000), 60000}); !ok || s < 900 || s > 1100 {
		t.Errorf("slope %f, %v; want 1000 a second", s, ok)
	}
}

func TestTimeTo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		limit, real uint64
		slope       float64
		want        time.Duration
	}{
		{100, 50, 10, 5 * time.Second}, {100, 50, 0, -1}, {100, 50, -5, -1}, {100, 100, 1, 0}, {100, 120, 1, 0},
		{1 << 62, 0, 1e-9, -1},
	} {
		if got := timeTo(tt.limit, tt.real, tt.slope); got != tt.want {
			t.Errorf("timeTo(%d, %d, %g) = %v, want %v", tt.limit, tt.real, tt.slope, got, tt.want)
		}
	}
}
