package arbiter

import (
	"context"
	"sync"
)

// queue hands out keys to be worked on: each key to one worker at a time, and
// once more if it was added while it was worked on.
type queue struct {
	mu    sync.Mutex
	dirty map[string]bool // waiting, or to be done again
	busy  map[string]bool
	order []string
	ready chan struct{} // holds a token while order is not empty
}

func newQueue() *queue {
	return &queue{dirty: map[string]bool{}, busy: map[string]bool{}, ready: make(chan struct{}, 1)}
}

// add asks for key to be worked on.
func (q *queue) add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dirty[key] {
		return
	}
	q.dirty[key] = true
	if !q.busy[key] {
		q.push(key)
	}
}

func (q *queue) push(key string) {
	q.order = append(q.order, key)
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// work calls f for each key until ctx is done. Any number of goroutines may
// work on one queue.
func (q *queue) work(ctx context.Context, f func(ctx context.Context, key string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.ready:
		}
		if key, ok := q.take(); ok {
			f(ctx, key)
			q.release(key)
		}
	}
}

func (q *queue) take() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return "", false
	}
	key := q.order[0]
	q.order = q.order[1:]
	delete(q.dirty, key)
	q.busy[key] = true
	if len(q.order) > 0 {
		select {
		case q.ready <- struct{}{}:
		default:
		}
	}
	return key, true
}

func (q *queue) release(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.busy, key)
	if q.dirty[key] {
		q.push(key)
	}
}

// broadcast wakes everybody who waits for a change.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait is closed at the next signal.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) signal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
