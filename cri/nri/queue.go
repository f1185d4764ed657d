package nri

import (
	"context"
	"sync"

	"github.com/arbiterd/arbiter/cri"
)

// maxQueued is far more than a node starts containers in the time in which an
// engine could be busy. Beyond it events are dropped and the connection is
// made anew: the runtime then tells of everything once more.
const maxQueued = 4096

// A queue takes events from hooks, which must not wait, to the engine.
type queue struct {
	mu     sync.Mutex
	events []cri.Event
	wake   chan struct{} // capacity 1
	full   chan struct{} // capacity 1
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// push appends. All events of one call are kept together, however many.
func (q *queue) push(events ...cri.Event) {
	q.mu.Lock()
	if len(q.events) >= maxQueued {
		q.mu.Unlock()
		signal(q.full)
		return
	}
	q.events = append(q.events, events...)
	q.mu.Unlock()
	signal(q.wake)
}

// overflow is readable once events were dropped.
func (q *queue) overflow() <-chan struct{} { return q.full }

// deliver hands events over, in order, until ctx is done.
func (q *queue) deliver(ctx context.Context, emit func(cri.Event)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
		q.mu.Lock()
		events := q.events
		q.events = nil
		q.mu.Unlock()
		for _, ev := range events {
			if ctx.Err() != nil {
				return
			}
			emit(ev)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
