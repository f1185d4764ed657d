package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// undoV2 undoes the scores and the kernel files of a version 2 record, in the
// order in which the kernel can decide at any moment: its right to kill first,
// then the limits. Where usage does not fit under the original limit the
// kernel kills then, as it would have without us; only room that a resume
// verdict granted for good is left.
func (s *FS) undoV2(d *dir, rec *Record) (left []string, err error) {
	if rec.Scores != nil {
		list := func() ([]int, error) { return d.pidsBut(scored) }
		if err := (scoreboard{s.proc}).restore(list, rec.Scores); err != nil {
			return nil, err
		}
		rec.Scores = nil
		s.changed("scores restored", d.path)
	}
	for _, name := range []string{fileHigh, fileSwapMax, fileOOMGroup} {
		if err := s.putBack(d, rec, name); err != nil {
			return nil, err
		}
	}
	return s.undoMax(d, rec)
}

// scored reports whether a directory has a record of its own about scores.
func scored(d *dir) bool {
	rec, err := d.record()
	return err == nil && rec != nil && rec.Scores != nil
}

// undoMax puts memory.max back.
func (s *FS) undoMax(d *dir, rec *Record) (left []string, err error) {
	f := rec.Fields[fileMax]
	if f == nil {
		return nil, nil
	}
	shown, err := d.value(fileMax)
	if err != nil {
		return nil, err
	}
	to, err := s.maxAfter(d, rec, f, shown)
	if err != nil {
		return nil, err
	}
	if to != f.Original {
		left = append(left, fmt.Sprintf("%s: memory.max stays at %s, usage does not fit under %s", d.path, to, f.Original))
	}
	if f.ours(shown) && to != shown {
		if err := undisturbed(func() error { return d.write(fileMax, to) }); err != nil {
			return nil, err
		}
		s.changed("max restored", d.path)
	}
	delete(rec.Fields, fileMax)
	rec.Borrowed, rec.Granted = 0, 0
	return left, nil
}

// maxAfter is the memory.max that an undo leaves.
func (s *FS) maxAfter(d *dir, rec *Record, f *Field, shown string) (string, error) {
	original, parseErr := strconv.ParseUint(f.Original, 10, 64)
	if rec.Granted == 0 || !f.ours(shown) || parseErr != nil {
		return f.Original, nil
	}
	current, err := d.number(fileCurrent)
	if err != nil {
		return "", err
	}
	b, err := d.read(fileStat)
	if err != nil {
		return "", err
	}
	cache, err := parseReclaimable(b)
	if err != nil || current-min(cache, current)+mib <= original {
		return f.Original, err
	}
	return bytesOf(original + pageFloor(rec.Granted)), nil
}

// dropGuard lets go of c's guards until guards are allowed again.
func (c *v2) dropGuard(context.Context) error {
	var errs []error
	for _, l := range slices.Backward(c.bound()) {
		l.mu.Lock()
		if l.rec != nil {
			l.scores.shields = 0
			errs = append(errs, l.standDown())
			if !l.scores.resting {
				errs = append(errs, l.setHigh(l.soft))
			}
		}
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}
