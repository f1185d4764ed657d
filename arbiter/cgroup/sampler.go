package cgroup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// sampleQuantum is the grid that looks are put on, so that many cgroups
	// share a wake-up: their number does not raise it. What may wait for
	// longer than sampleCoarse shares one with all others of that second.
	sampleQuantum = 50 * time.Millisecond
	sampleCoarse  = time.Second
	// sampleSoonest and sampleLatest bound the time between two looks at one
	// cgroup: near its limit, and far from it.
	sampleSoonest = 250 * time.Millisecond
	sampleLatest  = 5 * time.Second
	// sampleStale is how long a cgroup far from its limit whose usage does not
	// move is not read in full.
	sampleStale = time.Minute
)

// A look reads one cgroup and says when to look again; 0 or less ends it. It
// runs on the sampler's one goroutine: it must not wait for a container.
type look func(now time.Time) time.Duration

// A sampler looks at many cgroups from one goroutine with one timer. What is
// far from its limit is looked at rarely, what is near often.
type sampler struct {
	base  time.Time // of the grid
	mu    sync.Mutex
	looks map[any]*scheduled
	wake  chan struct{} // something is due earlier than it was
}

type scheduled struct {
	look look
	due  time.Time
}

func newSampler() *sampler {
	return &sampler{base: time.Now(), looks: map[any]*scheduled{}, wake: make(chan struct{}, 1)}
}

// add has f called soon, and then as it says; it replaces what was added for
// the key before.
func (s *sampler) add(key any, f look) {
	s.mu.Lock()
	s.looks[key] = &scheduled{look: f, due: time.Now()}
	s.mu.Unlock()
	s.poke()
}

// hurry has the key looked at within a time, if it is known.
func (s *sampler) hurry(key any, within time.Duration) {
	due := time.Now().Add(within)
	s.mu.Lock()
	l := s.looks[key]
	earlier := l != nil && due.Before(l.due)
	if earlier {
		l.due = due
	}
	s.mu.Unlock()
	if earlier {
		s.poke()
	}
}

func (s *sampler) remove(key any) {
	s.mu.Lock()
	delete(s.looks, key)
	s.mu.Unlock()
}

func (s *sampler) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run looks until ctx is done.
func (s *sampler) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		if next, ok := s.round(time.Now()); ok {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
	}
}

// round calls every look that is due and tells how long the next may wait.
func (s *sampler) round(now time.Time) (next time.Duration, ok bool) {
	due := map[any]*scheduled{}
	s.mu.Lock()
	for key, l := range s.looks {
		if !l.due.After(now) {
			l.due = s.onGrid(now, sampleLatest) // until the look says better
			due[key] = l
		}
	}
	s.mu.Unlock()
	for key, l := range due {
		again := l.look(now)
		s.mu.Lock()
		switch at := s.onGrid(now, again); {
		case s.looks[key] != l:
		case again <= 0:
			delete(s.looks, key)
		case at.Before(l.due):
			l.due = at
		}
		s.mu.Unlock()
	}
	return s.earliest(now)
}

// onGrid is the time of a look that may wait for a while: not later than that.
func (s *sampler) onGrid(now time.Time, wait time.Duration) time.Time {
	at := now.Add(wait)
	if wait <= sampleCoarse {
		return at
	}
	return at.Add(-(at.Sub(s.base) % sampleCoarse))
}

// earliest is the wait until the first look, put on the grid.
func (s *sampler) earliest(now time.Time) (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first time.Time
	for _, l := range s.looks {
		if !ok || l.due.Before(first) {
			first, ok = l.due, true
		}
	}
	return first.Sub(now).Truncate(sampleQuantum) + sampleQuantum, ok
}

// interval is how long a look may wait: less the nearer the limit is, in
// memory and in time.
func interval(real, limit uint64, left time.Duration) time.Duration {
	if limit == 0 {
		return sampleLatest
	}
	wait := sampleLatest
	if left >= 0 {
		wait = min(wait, left/8)
	}
	if real < limit {
		room := float64(limit-real) / float64(limit)
		wait = min(wait, time.Duration(room*float64(10*time.Second)))
	} else {
		wait = 0
	}
	return max(wait, sampleSoonest)
}

// sampled is one cgroup whose readings become events.
type sampled struct {
	c     Cgroup
	emit  func(Event)
	trail trail

	limit   uint64    // as last read in full; 0 is none
	current uint64    // usage then
	full    time.Time // when that was
	moves   bool      // it grew or shrank then
}

// quiet reports whether usage is far from the limit and where it was. One
// short file tells that; a reading in full takes ten.
func (s *sampled) quiet(now time.Time) bool {
	if s.moves || now.Sub(s.full) >= sampleStale {
		return false
	}
	current, err := currentOf(s.c)
	far := s.limit == 0 || current < s.limit/4*3
	return err == nil && far && max(current, s.current)-min(current, s.current) < max(s.limit/64, mib)
}

// currentOf is what is charged to a cgroup, cache and all.
func currentOf(c Cgroup) (uint64, error) {
	switch c := c.(type) {
	case *v1:
		return c.self.dir.number(fileUsage)
	case *v2:
		return c.self.dir.number(fileCurrent)
	}
	return 0, ErrNotSupported
}

// look reads usage and emits EventSample, unless nothing moved.
func (s *sampled) look(now time.Time) time.Duration {
	if s.quiet(now) {
		return sampleLatest
	}
	u, err := s.c.Usage()
	if errors.Is(err, ErrGone) {
		return 0
	}
	if err != nil {
		return sampleLatest
	}
	limit, _ := u.Limit.Bytes()
	s.limit, s.current, s.full = limit, u.Current, now
	r := reading{at: now, real: u.Unreclaimable}
	e := Event{Kind: EventSample, Cgroup: s.c, At: now, Level: u.LimitCgroup, Usage: u, TimeToLimit: -1}
	e.BytesPerSecond, _ = s.trail.slope(r)
	if limit > 0 {
		e.TimeToLimit = timeTo(limit, r.real, e.BytesPerSecond)
	}
	s.moves = e.BytesPerSecond != 0 || len(s.trail.readings) == 0
	s.trail.add(r)
	s.emit(e)
	if c, ok := s.c.(*v1); ok && limit > 0 && u.Current+atLimit >= limit {
		c.fs.watch.post(c.recheck) // a notification that was lost would leave it asleep for ever
	}
	return interval(r.real, limit, e.TimeToLimit)
}

// pressed watches one cgroup's PSI for a share of time over a span.
type pressed struct {
	c     Cgroup
	emit  func(Event)
	read  func() (pressure, error)
	full  bool
	share float64 // percent
	over  time.Duration

	past  []stall
	quiet time.Time // no event before
}

// stall is how long tasks had waited for memory, at a time.
type stall struct {
	at     time.Time
	micros uint64
}

// look reads PSI and emits EventPressure when it was over the mark for the
// whole span, and then at most once a span.
func (p *pressed) look(now time.Time) time.Duration {
	psi, err := p.read()
	if errors.Is(err, ErrGone) {
		return 0
	}
	if err != nil {
		return sampleLatest
	}
	micros := psi.someMicros
	if p.full {
		micros = psi.fullMicros
	}
	share, known := p.add(stall{now, micros})
	if known && share >= p.share && !now.Before(p.quiet) {
		p.quiet = now.Add(p.over)
		u, _ := p.c.Usage()
		p.emit(Event{Kind: EventPressure, Cgroup: p.c, At: now, Usage: u, Why: p.why(share)})
	}
	return min(max(p.over/8, sampleSoonest), sampleLatest)
}

// add takes a reading and tells the percentage of the span that was stalled;
// false while the readings do not cover the span.
func (p *pressed) add(now stall) (percent float64, known bool) {
	p.past = append(p.past, now)
	first := 0
	for first+1 < len(p.past) && now.at.Sub(p.past[first+1].at) >= p.over {
		first++
	}
	p.past = append(p.past[:0], p.past[first:]...)
	span := now.at.Sub(p.past[0].at)
	if span < p.over {
		return 0, false
	}
	return float64(now.micros-p.past[0].micros) / float64(span.Microseconds()) * 100, true
}

func (p *pressed) why(share float64) string {
	kind := "some"
	if p.full {
		kind = "full"
	}
	return fmt.Sprintf("memory pressure %s %.0f%% over %v", kind, share, p.over)
}

// The keys of a cgroup's looks: one cgroup may have both.
type (
	sampleKey   struct{ c Cgroup }
	pressureKey struct{ c Cgroup }
)

// watchUsage starts, adjusts or ends the samples and the pressure events that
// o asks for, and tells in sentences what cannot be had.
func (s *FS) watchUsage(c Cgroup, o ArmOptions) (missing []string) {
	emit := func(e Event) { s.watch.post(func() { s.emit(e) }) }
	if o.Sample {
		s.sampler.add(sampleKey{c}, (&sampled{c: c, emit: emit}).look)
	} else {
		s.sampler.remove(sampleKey{c})
	}
	if o.PressureOver <= 0 {
		s.sampler.remove(pressureKey{c})
		return nil
	}
	read, err := s.pressureReader(c)
	if err != nil {
		s.sampler.remove(pressureKey{c})
		return []string{fmt.Sprintf("pressure is not watched: %v", err)}
	}
	p := &pressed{c: c, emit: emit, read: read, full: o.PressureFull, share: o.PressurePercent, over: o.PressureOver}
	s.sampler.add(pressureKey{c}, p.look)
	return nil
}

// unwatchUsage ends watchUsage.
func (s *FS) unwatchUsage(c Cgroup) { s.watchUsage(c, ArmOptions{}) }
