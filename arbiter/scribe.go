package arbiter

import (
	"time"

	"github.com/hashicorp/go-hclog"
)

// recordWithin bounds how long a case waits for its record to reach the disk.
const recordWithin = 2 * time.Second

// A scribe writes a case's record in its own goroutine, so that a disk that is
// full, slow or hung delays no verdict. It says so once when writing fails.
type scribe struct {
	jobs   chan job
	log    hclog.Logger
	failed bool
}

type job struct {
	f    func() error
	done chan struct{}
}

func newScribe(log hclog.Logger) *scribe {
	s := &scribe{jobs: make(chan job, 64), log: log}
	go s.run()
	return s
}

func (s *scribe) run() {
	for j := range s.jobs {
		err := j.f()
		if err != nil && !s.failed {
			s.log.Error("case record not written", "error", err)
		}
		s.failed = err != nil
		close(j.done)
	}
}

// write queues f and waits for it, for at most recordWithin. A queue that is
// full belongs to a disk that hangs: then f is dropped.
func (s *scribe) write(f func() error) {
	j := job{f: f, done: make(chan struct{})}
	select {
	case s.jobs <- j:
	default:
		return
	}
	t := time.NewTimer(recordWithin)
	defer t.Stop()
	select {
	case <-j.done:
	case <-t.C:
		s.log.Warn("case record is slow to reach the disk", "elapsed", recordWithin)
	}
}

// end lets the goroutine go once what was queued is written.
func (s *scribe) end() { close(s.jobs) }
