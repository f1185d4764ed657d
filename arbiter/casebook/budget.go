package casebook

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

// ErrNoRoom says that a write would break a limit of [state].
var ErrNoRoom = errors.New("no room for artifacts")

// A budget is the disk space that the book's artifacts may still take.
type budget struct {
	limits Limits
	dir    string
	statfs func(string, *unix.Statfs_t) error

	mu   sync.Mutex
	used int64 // bytes of disk of everything in the book
}

// take asks for n more bytes for a case that has caseUsed already. The disk is
// looked at each time: others write there too, and statfs costs far less than
// the write that follows.
func (b *budget) take(n, caseUsed int64) error {
	total, free, err := b.disk()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := size(b.limits.CaseBytes, total); m > 0 && caseUsed+n > m {
		return fmt.Errorf("%w: the case has %s of its %s", ErrNoRoom, human(caseUsed), human(m))
	}
	if m := size(b.limits.MaxBytes, total); m > 0 && b.used+n > m {
		return fmt.Errorf("%w: all cases have %s of max-size %s", ErrNoRoom, human(b.used), human(m))
	}
	if floor := size(b.limits.MinFree, total); floor > 0 && free-n < floor {
		return fmt.Errorf("%w: %s has %s free, min-free is %s", ErrNoRoom, b.dir, human(free), human(floor))
	}
	b.used += n
	return nil
}

// room is how many more bytes take would give.
func (b *budget) room(caseUsed int64) (int64, error) {
	total, free, err := b.disk()
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := free - size(b.limits.MinFree, total)
	if m := size(b.limits.CaseBytes, total); m > 0 {
		n = min(n, m-caseUsed)
	}
	if m := size(b.limits.MaxBytes, total); m > 0 {
		n = min(n, m-b.used)
	}
	return max(n, 0), nil
}

// disk is the size of the disk and what can still be written to it. Blocks
// that the kernel promised but has not placed yet count as taken (statfs(2)).
func (b *budget) disk() (total, free int64, err error) {
	var st unix.Statfs_t
	if err := b.statfs(b.dir, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", b.dir, err)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

func (b *budget) add(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += n
}

func (b *budget) total() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// size is a limit in bytes on a disk of total bytes; 0 is none.
func size(s policy.Size, total int64) int64 { return int64(s.Of(uint64(max(total, 0)))) }

// human writes bytes for error messages.
func human(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
