package cgroup

import "sync/atomic"

// A worker runs a function on a goroutine of its own, once at a time, and once
// more if it was asked for meanwhile.
type worker struct{ state atomic.Int32 }

const (
	workerIdle int32 = iota
	workerBusy
	workerAgain
)

func (w *worker) ask(f func()) {
	for {
		switch {
		case w.state.CompareAndSwap(workerIdle, workerBusy):
			go w.run(f)
			return
		case w.state.CompareAndSwap(workerBusy, workerAgain), w.state.Load() == workerAgain:
			return
		}
	}
}

func (w *worker) run(f func()) {
	for {
		f()
		if w.state.CompareAndSwap(workerBusy, workerIdle) {
			return
		}
		w.state.Store(workerBusy)
	}
}
