package arbiter

import "time"

// aliveWithin is how long the engine's lock may be held by somebody else
// before the engine counts as stuck.
const aliveWithin = time.Second

// Alive reports whether the engine still answers, which it does as long as its
// lock can be had.
func (e *Engine) Alive() bool {
	got := make(chan struct{})
	go func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		close(got)
	}()
	t := time.NewTimer(aliveWithin)
	defer t.Stop()
	select {
	case <-got:
		return true
	case <-t.C:
		return false
	}
}
