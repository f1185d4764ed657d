package cgroup

import "sync"

// A background runs jobs one after the other, in a goroutine that exists only
// while there are any. It is for what the kernel takes its time for and nobody
// waits for.
type background struct {
	mu      sync.Mutex
	jobs    []func()
	running bool
}

func (b *background) add(job func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs = append(b.jobs, job)
	if !b.running {
		b.running = true
		go b.run()
	}
}

func (b *background) run() {
	for {
		b.mu.Lock()
		if len(b.jobs) == 0 {
			b.running = false
			b.mu.Unlock()
			return
		}
		job := b.jobs[0]
		b.jobs = b.jobs[1:]
		b.mu.Unlock()
		job()
	}
}
