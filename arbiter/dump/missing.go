package dump

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrGone says that a process ended, or was never the one that was meant.
var ErrGone = errors.New("process is gone")

// gone turns the errors of a vanished process into ErrGone.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// missing collects what a core lacks and why, in words. A hostile process can
// be of many parts that cannot be read: the list is short, and tells how many
// it leaves out.
type missing struct {
	list []string
	more int
}

func (m *missing) add(format string, args ...any) {
	if len(m.list) >= 16 {
		m.more++
		return
	}
	text := fmt.Sprintf(format, args...)
	m.list = append(m.list, strings.Map(func(r rune) rune {
		if r < ' ' {
			return '?'
		}
		return r
	}, text[:min(len(text), 300)]))
}

func (m *missing) all() []string {
	if m.more == 0 {
		return m.list
	}
	return append(slices.Clip(m.list), fmt.Sprintf("and %d more", m.more))
}

// note is the content of the ARBITER note: always of the same length, so that
// it can be written over.
func (m *missing) note() []byte {
	text := "complete\n"
	if all := m.all(); len(all) > 0 {
		text = "missing: " + strings.Join(all, "\nmissing: ") + "\n"
	}
	b := make([]byte, noteMissingSize)
	copy(b[:noteMissingSize-1], text)
	return b
}

const unfinished = "missing: the dump was not finished; memory that reads as zero may be missing\n"
