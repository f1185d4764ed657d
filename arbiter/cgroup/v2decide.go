package cgroup

import (
	"fmt"
	"slices"
	"time"
)

// Cgroup v2 has no way to keep the kernel from killing at memory.max other
// than oom_score_adj −1000, and a task with that score is invisible to the
// node's own out-of-memory killer. So it is given late and taken back soon:
// memory.high, a little below the limit, tells when.
//
// A fixed high starves a container that lives above it (measured: 2 % of its
// speed at 92 % of the limit), so it moves towards a top as long as memory
// grows slowly. Guarding only at the top loses sudden allocators (15 of 20
// were killed); guarding when the limit is less than two seconds away lost
// none of 20. This file holds those decisions, over figures only.

const (
	// guardWithin is the time to the limit that calls for the guard.
	guardWithin = 2 * time.Second
	// slopeAge is how old a reading must be to measure growth against: bursts
	// within less are not growth.
	slopeAge = 250 * time.Millisecond
	// slopeSpan bounds the time that growth since an old reading is spread
	// over. Whatever came in a long pause may have come in its last moment.
	slopeSpan = time.Second
	// guardAtLeast is how long a guard stays.
	guardAtLeast = time.Second
	// peakWindow is the past whose peak memory.high does not fall under.
	peakWindow = 10 * time.Second
)

// A band is where memory.high may be for a limit: from base, the idle value,
// up to top. What is left above top must hold what the fastest allocators take
// before a guard stands (measured past memory.high on 6.1, within 50 ms: 4 MiB
// with one thread, 15 MiB with 8 threads and huge pages).
type band struct{ limit, base, top uint64 }

const mib = 1 << 20

// bandOf is the band of a limit, in bytes.
func bandOf(limit uint64) band {
	c := min(max(limit/10, 16*mib), 512*mib)
	c = min(c, limit/4) // tiny containers
	return band{limit: limit, base: pageFloor(limit - c), top: pageFloor(limit - c/8*5)}
}

// width is the distance from base to the limit.
func (b band) width() uint64 { return b.limit - b.base }

// tolerance is how far under memory.high real memory still presses against
// it: the kernel's own counters lag by some pages per processor.
func (b band) tolerance() uint64 { return max(b.width()/16, 512<<10) }

func pageFloor(n uint64) uint64 { return n &^ 4095 }

// A reading is memory that cannot be reclaimed, at a time.
type reading struct {
	at   time.Time
	real uint64
}

// trail is the recent past of one cgroup's readings, oldest first.
type trail struct{ readings []reading }

// add appends a reading and drops what neither a slope nor a peak needs: all
// but one of those older than the peak's window, and those that come in
// quicker succession than a window of 64 readings would hold.
func (t *trail) add(r reading) {
	keep := 0
	for keep+1 < len(t.readings) && r.at.Sub(t.readings[keep+1].at) > peakWindow {
		keep++
	}
	t.readings = append(t.readings[:0], t.readings[keep:]...)
	if n := len(t.readings); n > 1 && r.at.Sub(t.readings[n-2].at) < peakWindow/64 {
		r.real = max(r.real, t.readings[n-1].real)
		t.readings[n-1] = r
		return
	}
	t.readings = append(t.readings, r)
}

// slope is the growth in bytes per second up to a reading, against the newest
// one that is at least slopeAge older; false before there is such a one.
func (t *trail) slope(now reading) (float64, bool) {
	for _, v := range slices.Backward(t.readings) {
		age := now.at.Sub(v.at)
		if age >= slopeAge {
			rise := float64(now.real) - float64(v.real)
			return rise / min(age, slopeSpan).Seconds(), true
		}
	}
	return 0, false
}

// peak is the highest reading since a time.
func (t *trail) peak(since time.Time) (peak uint64) {
	for _, r := range t.readings {
		if !r.at.Before(since) {
			peak = max(peak, r.real)
		}
	}
	return peak
}

// timeTo is how long growth at slope bytes per second takes from real to
// limit: negative while there is no growth, 0 beyond the limit.
func timeTo(limit, real uint64, slope float64) time.Duration {
	switch {
	case slope <= 0:
		return -1
	case real >= limit:
		return 0
	}
	seconds := float64(limit-real) / slope
	if seconds > 1e6 {
		return -1
	}
	return time.Duration(seconds * float64(time.Second))
}

// soon reports whether a time to the limit calls for the guard.
func soon(left time.Duration) bool { return left >= 0 && left < guardWithin }

// A guardMove is what to do about one limit.
type guardMove struct {
	kind guardKind
	high uint64 // raiseHigh, lowerHigh, letGo: the new memory.high
	why  string
}

type guardKind uint8

const (
	stay guardKind = iota
	raiseHigh
	lowerHigh
	standGuard
	letGo
	surrender
)

// onHigh decides when memory.high was passed: by page cache, which the kernel
// reclaims and nobody need care about; by slow growth, which moves it up; or
// by what may reach the limit before anybody looks again.
func onHigh(b band, high uint64, t *trail, now reading) guardMove {
	slope, _ := t.slope(now)
	left := timeTo(b.limit, now.real, slope)
	presses := now.real+b.tolerance() >= high
	switch {
	case soon(left) && now.real >= b.limit/2:
		return guardMove{kind: standGuard, why: fmt.Sprintf("%.1fs to the limit", left.Seconds())}
	case now.real+b.tolerance() >= b.top:
		return guardMove{kind: standGuard, why: "memory.high is at its top"}
	case high < b.top && (presses || now.real >= b.base-b.width()):
		// Little cache is left under high, or none: it would starve there.
		return guardMove{kind: raiseHigh, high: halfway(high, b.top), why: "slow growth"}
	}
	return guardMove{kind: stay, why: "page cache"}
}

// halfway is the next step of memory.high towards its top.
func halfway(high, top uint64) uint64 {
	if next := pageFloor(high + (top-high)/2); next > high && top-next >= mib {
		return next
	}
	return top
}

// whileGuarded decides whether a guard that stands since a time may go. It
// looks at real memory only: with memory.high lifted, cache fills the rest.
func whileGuarded(b band, since time.Time, t *trail, now reading) guardMove {
	slope, known := t.slope(now)
	left := timeTo(b.limit, now.real, slope)
	recent := max(t.peak(now.at.Add(-guardAtLeast)), now.real)
	switch {
	case now.at.Sub(since) < guardAtLeast || !known:
		return guardMove{kind: stay, why: "guarded just now"}
	case soon(left):
		return guardMove{kind: stay, why: fmt.Sprintf("%.1fs to the limit", left.Seconds())}
	case recent+b.tolerance() >= b.top:
		return guardMove{kind: stay, why: "above the top of memory.high"}
	}
	return guardMove{kind: letGo, high: above(b, recent), why: "growth ended"}
}

// whileIdle decides what the sampler's reading means for a limit that is not
// guarded. The guard is not left to memory.high alone: an allocator that the
// kernel does not throttle (inside one system call on old kernels) passes it
// without a notice.
func whileIdle(b band, high uint64, t *trail, now reading) guardMove {
	slope, known := t.slope(now)
	if known && now.real >= b.base-b.width() && soon(timeTo(b.limit, now.real, slope)) {
		return guardMove{kind: standGuard, why: "fast growth"}
	}
	peak := max(t.peak(now.at.Add(-peakWindow)), now.real)
	if want := above(b, peak); want < high && high-want >= mib {
		return guardMove{kind: lowerHigh, high: want, why: "usage fell"}
	}
	return guardMove{kind: stay}
}

// onCache decides while memory.high is lifted because page cache alone pressed
// against it. The kernel throttles a writer there until its pages are written
// back (Linux 6.12: a fifth of the speed). The limit itself then tells of every
// reclaim. High comes back only after a guard: to set it makes the kernel
// reclaim, which takes a while.
func onCache(b band, t *trail, now reading) guardMove {
	slope, _ := t.slope(now)
	left := timeTo(b.limit, now.real, slope)
	if soon(left) && now.real >= b.limit/2 {
		return guardMove{kind: standGuard, why: fmt.Sprintf("%.1fs to the limit", left.Seconds())}
	}
	if now.real+b.width() >= b.base {
		return guardMove{kind: standGuard, why: "no page cache any more"}
	}
	return guardMove{kind: stay, why: "page cache"}
}

// cacheOnly reports whether what presses against memory.high is page cache, and
// real memory far below.
func cacheOnly(b band, now reading) bool { return now.real+b.width() < b.base }

// above is the memory.high that leaves a peak unthrottled, within the band.
func above(b band, peak uint64) uint64 {
	return min(max(pageFloor(peak+b.width()/8), b.base), b.top)
}
