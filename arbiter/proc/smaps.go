package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A Mapping is one mapping of /proc/PID/smaps, or with smaps_rollup all of
// them together. Sizes are in bytes.
type Mapping struct {
	Start, End uint64
	Perms      string // "rw-p"
	Name       string // a file's path, "[heap]", "[anon:...]", or empty: what the process chose

	Size, Rss, Pss, Anonymous, Shmem, Swap, AnonHuge, Locked uint64
}

// SmapsRollup sums up the process' mappings. The kernel walks all its page
// tables under its mmap lock, so the read is abandoned when ctx is done.
func (fs FS) SmapsRollup(ctx context.Context, pid int) (Mapping, error) {
	return Abandon(ctx, func() (Mapping, error) {
		return parse(fs, pid, "smaps_rollup", func(r io.Reader) (Mapping, error) {
			all, err := parseSmaps(r, 1)
			if err == nil && len(all) == 0 {
				err = errors.New("no mapping")
			}
			if err != nil {
				return Mapping{}, err
			}
			return all[0], nil
		})
	})
}

// LargestMappings are the n mappings with the most memory in RAM and swap,
// largest first. Like SmapsRollup it is abandoned when ctx is done.
func (fs FS) LargestMappings(ctx context.Context, pid, n int) ([]Mapping, error) {
	return Abandon(ctx, func() ([]Mapping, error) {
		return parse(fs, pid, "smaps", func(r io.Reader) ([]Mapping, error) { return parseSmaps(r, n) })
	})
}

// parseSmaps parses, and keeps the n largest of,
//
//	7f12c8000000-7f12c8021000 rw-p 00000000 00:00 0      [heap]
//	Size:                132 kB
//	Rss:                  12 kB
//	VmFlags: rd wr mr mw me
//
// A name may hold blanks; newlines in it are written as \012.
func parseSmaps(r io.Reader, n int) ([]Mapping, error) {
	var top largestMappings
	var m *Mapping
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		text, err := br.ReadSlice('\n')
		if len(text) > 0 {
			if next, ok := parseMapping(string(bytes.TrimSuffix(text, []byte("\n")))); ok {
				top.add(m, n)
				m = &next
			} else if m == nil {
				return nil, fmt.Errorf("no mapping in %.80q", text)
			} else if err := m.set(string(text)); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			top.add(m, n)
			return top, nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// parseMapping parses a mapping's first line. The others have their colon
// where this one has its first blank.
func parseMapping(text string) (Mapping, bool) {
	f := strings.SplitN(text, " ", 6)
	lo, hi, dash := strings.Cut(f[0], "-")
	if !dash || len(f) < 5 || len(f[1]) != 4 {
		return Mapping{}, false
	}
	start, err1 := strconv.ParseUint(lo, 16, 64)
	end, err2 := strconv.ParseUint(hi, 16, 64)
	if err1 != nil || err2 != nil || end < start {
		return Mapping{}, false
	}
	m := Mapping{Start: start, End: end, Perms: f[1]}
	if len(f) == 6 {
		m.Name = strings.TrimLeft(f[5], " ")
	}
	return m, true
}

// set stores one "Key: N kB" line; keys without "kB" or of no interest are
// skipped.
func (m *Mapping) set(text string) error {
	key, value, _ := strings.Cut(text, ":")
	to := map[string]*uint64{"Size": &m.Size, "Rss": &m.Rss, "Pss": &m.Pss, "Anonymous": &m.Anonymous,
		"Swap": &m.Swap, "AnonHugePages": &m.AnonHuge, "Locked": &m.Locked, "Pss_Shmem": &m.Shmem}[key]
	if to == nil {
		return nil
	}
	if err := kilobytes(to)(strings.Fields(value)); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

type largestMappings []Mapping

func (l *largestMappings) add(m *Mapping, n int) {
	if m == nil {
		return
	}
	*l = append(*l, *m)
	slices.SortStableFunc(*l, func(a, b Mapping) int {
		switch x, y := a.Rss+a.Swap, b.Rss+b.Swap; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	*l = (*l)[:min(len(*l), n)]
}
