package cgroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// releaseWait is how long a release waits for usage to fit under a limit that
// borrowed room has to be taken back from. A container that is above it is
// killed by the kernel at its next charge, which makes it fit.
const releaseWait = 2 * time.Second

// ReleaseOptions say what is to be released.
type ReleaseOptions struct {
	// Path is released together with its ancestors and all its descendants.
	Path string
	// Only leaves the ancestors out: whoever else shares them stays guarded.
	Only bool
	// All releases the whole tree; Path is not used.
	All bool
	// Force also undoes what a live daemon owns.
	Force bool
}

// ReleaseReport tells what a release did, by cgroup path.
type ReleaseReport struct {
	Released []string // undone, record removed
	Cleared  []string // an inherited out-of-memory flag was cleared
	Skipped  []string // owned by a live daemon
	Left     []string // sentences: what could not be undone, and why
}

// Release undoes what undo records say, with nothing but the cgroup tree: no
// daemon, no disk. Ancestors come first (but for scores, and for version 2 limits
// that usage does not fit under); whatever a live daemon has locked is
// skipped. Where the kernel shows a value that is not one of ours, it stays.
// Released twice is as good as once.
func (s *FS) Release(ctx context.Context, o ReleaseOptions) (ReleaseReport, error) {
	top := "/"
	if !o.All {
		top = filepath.Clean("/" + o.Path)
	}
	if !o.All && !o.Only {
		var err error
		if top, err = s.topRecorded(top); err != nil {
			return ReleaseReport{}, ignoreGone(err)
		}
	}
	d, err := openDir(s.mounts.memory, top)
	if err != nil {
		return ReleaseReport{}, ignoreGone(err)
	}
	defer d.close()
	r := release{fs: s, force: o.Force}
	if s.version == 2 {
		err = r.scores(d)
	}
	err = errors.Join(err, r.dir(ctx, d, inherited{}))
	return r.report, err
}

// topRecorded is the outermost of p and its ancestors that has an undo record.
// Everything below it is released with it: an ancestor's flag may have been
// inherited anywhere there.
func (s *FS) topRecorded(p string) (string, error) {
	var chain []string
	for q := p; q != "/"; q = path.Dir(q) {
		chain = append(chain, q)
	}
	for _, q := range slices.Backward(chain) {
		d, err := openDir(s.mounts.memory, q)
		if err != nil {
			return "", err
		}
		rec, err := d.record()
		d.close()
		if err != nil || rec != nil {
			return q, err
		}
	}
	return p, nil
}

// A release is one pass over the tree.
type release struct {
	fs     *FS
	force  bool
	report ReleaseReport
}

// inherited is what a directory may have got from armed ancestors.
type inherited struct {
	flag bool     // an out-of-memory flag that nobody owns any more
	keep []string // paths whose flag was set before ours
}

// dir releases d and everything below it. The record is removed last: until
// then it tells whoever comes next that flags below may be inherited ones.
func (r *release) dir(ctx context.Context, d *dir, in inherited) error {
	rec, err := d.record()
	if err != nil {
		return ignoreGone(err)
	}
	if rec == nil {
		return errors.Join(r.clearFlag(d, in), r.children(ctx, d, in))
	}
	l, err := tryLock(d)
	if errors.Is(err, ErrLocked) && !r.force {
		r.report.Skipped = append(r.report.Skipped, d.path)
		return r.children(ctx, d, inherited{})
	}
	if err != nil && !errors.Is(err, ErrLocked) {
		return ignoreGone(err)
	}
	defer l.unlock()
	// Read it again: until the lock was ours, its owner may have lived.
	if rec, err = d.record(); err != nil || rec == nil {
		return errors.Join(ignoreGone(err), r.children(ctx, d, inherited{}))
	}
	if rec.Inherited {
		in.flag = true
		for _, rel := range rec.Flagged {
			in.keep = append(in.keep, path.Join(d.path, rel))
		}
	}
	left, err := r.fs.undo(d, rec, false)
	r.report.Left = append(r.report.Left, left...)
	err = errors.Join(ignoreGone(err), r.children(ctx, d, in))
	left, late := r.fs.undoLate(ctx, d, rec)
	r.report.Left = append(r.report.Left, left...)
	err = errors.Join(err, ignoreGone(late))
	if err != nil || !rec.empty() {
		return err
	}
	if err := d.dropRecord(); err != nil {
		return ignoreGone(err)
	}
	r.fs.changed("record removed", d.path)
	r.report.Released = append(r.report.Released, d.path)
	return nil
}

func (r *release) children(ctx context.Context, d *dir, in inherited) error {
	return eachChild(d, func(c *dir) error { return r.dir(ctx, c, in) })
}

// eachChild calls f for every directory in d that is not gone meanwhile.
func eachChild(d *dir, f func(*dir) error) error {
	names, err := d.children()
	if err != nil {
		return ignoreGone(err)
	}
	return eachNamed(d, names, f)
}

func eachNamed(d *dir, names []string, f func(*dir) error) error {
	var errs []error
	for _, name := range names {
		c, err := d.child(name)
		if err != nil {
			errs = append(errs, ignoreGone(err))
			continue
		}
		errs = append(errs, f(c))
		c.close()
	}
	return errors.Join(errs...)
}

// scores gives all processes of the tree their scores back before any limit is
// lowered. Whoever gets it first is alone to be killed for a moment, if a limit
// is hit: the largest, as the kernel would choose.
func (r *release) scores(d *dir) error {
	rec, err := d.record()
	if err != nil {
		return ignoreGone(err)
	}
	names, err := d.children()
	if err != nil {
		return ignoreGone(err)
	}
	if rec == nil || rec.Scores == nil {
		return eachNamed(d, names, r.scores)
	}
	size := map[string]uint64{}
	err = eachNamed(d, names, func(c *dir) error {
		size[path.Base(c.path)], _ = c.number(fileCurrent)
		return nil
	})
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(size[b], size[a]) })
	return errors.Join(err, eachNamed(d, names, r.scores), ignoreGone(r.scoresOf(d)))
}

// scoresOf undoes the scores of d's own record.
func (r *release) scoresOf(d *dir) error {
	l, err := tryLock(d)
	if errors.Is(err, ErrLocked) && !r.force {
		return nil
	}
	if err != nil && !errors.Is(err, ErrLocked) {
		return err
	}
	defer l.unlock()
	rec, err := d.record()
	if err != nil || rec == nil {
		return err
	}
	if err := r.fs.undoScores(d, rec); err != nil {
		return err
	}
	return d.setRecord(rec)
}

// clearFlag clears the out-of-memory flag of a directory without a record
// that was created below an armed one.
func (r *release) clearFlag(d *dir, in inherited) error {
	if !in.flag || slices.Contains(in.keep, d.path) {
		return nil
	}
	cleared, err := r.fs.clearInherited(d)
	if cleared {
		r.report.Cleared = append(r.report.Cleared, d.path)
	}
	return ignoreGone(err)
}

// undo puts back what rec says, in the order in which the kernel can take
// over at any moment: first its right to kill, then the limits, and the thaw
// last. What is done is taken off rec, and rec is written back; left tells in
// sentences what was given up. A version 2 limit that usage does not fit under
// stays on it, unless it is late.
func (s *FS) undo(d *dir, rec *Record, late bool) (left []string, err error) {
	left, err = s.undoFields(d, rec, late)
	if rec.Freeze != nil {
		if thaw := s.letGo(rec.Freeze); thaw != nil {
			err = errors.Join(err, thaw)
		} else {
			rec.Freeze = nil
			s.changed("thawed", d.path)
		}
	}
	return left, errors.Join(err, ignoreGone(d.setRecord(rec)))
}

// undoFields undoes the kernel files of rec.
func (s *FS) undoFields(d *dir, rec *Record, late bool) (left []string, err error) {
	if s.version == 2 {
		return s.undoV2(d, rec, late)
	}
	return s.undoV1(d, rec)
}

// undoLate takes borrowed room back where usage did not fit while the tasks
// stood still. Descendants are thawed by now and the kernel may kill again, so
// usage comes down to the original limit unless the container needs nothing
// any more. If it does not within releaseWait, the record stays for the next
// release.
func (s *FS) undoLate(ctx context.Context, d *dir, rec *Record) (left []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, releaseWait)
	defer cancel()
	for len(rec.Fields) > 0 && ctx.Err() == nil {
		pause(ctx, 10*time.Millisecond)
		if left, err = s.undoFields(d, rec, true); err != nil {
			break
		}
	}
	if len(rec.Fields) > 0 && err == nil {
		left = append(left, fmt.Sprintf("%s: usage does not fit under the original limit; the limit is as low as usage allows", d.path))
	}
	rec.Inherited, rec.Flagged = false, nil
	return left, errors.Join(err, ignoreGone(d.setRecord(rec)))
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// putBack writes a field's original where the kernel shows one of ours, and
// takes the field off the record.
func (s *FS) putBack(d *dir, rec *Record, name string) error {
	f := rec.Fields[name]
	if f == nil {
		return nil
	}
	shown, err := d.value(name)
	if err != nil {
		return err
	}
	if f.ours(shown) {
		if err := d.write(name, f.Original); err != nil {
			return err
		}
		s.changed(strings.TrimPrefix(name, "memory.")+" restored", d.path)
	}
	delete(rec.Fields, name)
	return nil
}
