package cgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// settleWait is how long a full limit is given to be left by whoever filled it.
const settleWait = time.Second

// undoV2 undoes the scores and the kernel files of a version 2 record, in the
// order in which the kernel can decide at any moment: its right to kill first,
// then the limits. Where usage does not fit under the original limit the
// kernel kills, as it would have without us; only room that a resume verdict
// granted for good is left. That limit waits until it is late: the limits
// inside are back then, and what is killed for them is gone.
func (s *FS) undoV2(d *dir, rec *Record, late bool) (left []string, err error) {
	if err := s.undoScores(d, rec); err != nil {
		return nil, err
	}
	for _, name := range []string{fileHigh, fileSwapMax, fileOOMGroup} {
		if err := s.putBack(d, rec, name); err != nil {
			return nil, err
		}
	}
	return s.undoMax(d, rec, late)
}

// undoScores gives the processes that rec is about their scores back.
func (s *FS) undoScores(d *dir, rec *Record) error {
	if rec.Scores == nil {
		return nil
	}
	list := func() ([]int, error) { return d.pidsBut(scored) }
	if err := (scoreboard{s.proc}).restore(list, rec.Scores); err != nil {
		return err
	}
	rec.Scores = nil
	s.changed("scores restored", d.path)
	return nil
}

// scored reports whether a directory has a record of its own about scores.
func scored(d *dir) bool {
	rec, err := d.record()
	return err == nil && rec != nil && rec.Scores != nil
}

// undoMax puts memory.max back.
func (s *FS) undoMax(d *dir, rec *Record, late bool) (left []string, err error) {
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
	if bytes, ok := limitBytes(to); ok && f.ours(shown) && to != shown {
		used, err := d.unreclaimable()
		over := used > bytes
		if err != nil || over && !late {
			return nil, err
		}
		if over {
			if err := s.press(d, rec, bytes); err != nil {
				return nil, err
			}
		}
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

// press lowers memory.max to what is used, for a while: the next charge has
// the kernel kill the one that makes it worth. A limit below usage has it kill
// one process after the other until the memory of the first is back.
func (s *FS) press(d *dir, rec *Record, limit uint64) error {
	current, err := d.number(fileCurrent)
	if err != nil {
		return err
	}
	shown, err := d.value(fileMax)
	if err != nil {
		return err
	}
	to := pageFloor(current) + chargedAhead
	if now, ok := limitBytes(shown); !ok || to < now {
		rec.intend(fileMax, shown, bytesOf(to))
		if err := d.setRecord(rec); err != nil {
			return err
		}
		if err := undisturbed(func() error { return d.write(fileMax, bytesOf(to)) }); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleWait)
	defer cancel()
	for ctx.Err() == nil {
		if used, err := d.unreclaimable(); err != nil || used <= limit {
			return err
		}
		pause(ctx, killPoll)
	}
	return nil
}

// unreclaimable reads how much is used that cannot be reclaimed.
func (d *dir) unreclaimable() (uint64, error) {
	current, err := d.number(fileCurrent)
	if err != nil {
		return 0, err
	}
	b, err := d.read(fileStat)
	if err != nil {
		return 0, err
	}
	cache, err := parseReclaimable(b)
	return current - min(cache, current), err
}

// limitBytes reads a limit as version 2 shows it; false if it is none.
func limitBytes(shown string) (uint64, bool) {
	limit, err := parseMax(shown)
	bytes, limited := limit.Bytes()
	return bytes, limited && err == nil
}

// maxAfter is the memory.max that an undo leaves.
func (s *FS) maxAfter(d *dir, rec *Record, f *Field, shown string) (string, error) {
	original, parseErr := strconv.ParseUint(f.Original, 10, 64)
	if rec.Granted == 0 || !f.ours(shown) || parseErr != nil {
		return f.Original, nil
	}
	used, err := d.unreclaimable()
	if err != nil || used+mib <= original {
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
