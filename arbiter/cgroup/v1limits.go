package cgroup

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/sys/unix"
)

// limits are the two limits of a version 1 cgroup, in bytes as shown.
type limits struct {
	memory   uint64
	memsw    uint64 // memory and swap; never below memory
	hasMemsw bool
}

// any reports whether one of the limits is one.
func (l limits) any() bool {
	return l.memory < noLimitBytes || l.hasMemsw && l.memsw < noLimitBytes
}

// plus is l with n bytes more room. No limit stays none.
func (l limits) plus(n uint64) limits {
	l.memory, l.memsw = addBytes(l.memory, n), addBytes(l.memsw, n)
	return l
}

// addBytes raises a limit by n, to a whole page as the kernel would show it.
func addBytes(limit, n uint64) uint64 {
	if limit >= noLimitBytes || n > math.MaxUint64-limit {
		return limit
	}
	return (limit + n) &^ (pageBytes - 1)
}

// limits reads both limits of d.
func (d *dir) limits() (limits, error) {
	var l limits
	var err error
	if l.memory, err = d.number(fileLimit); err != nil {
		return limits{}, err
	}
	if l.hasMemsw = d.has(fileMemsw); !l.hasMemsw {
		return l, nil
	}
	l.memsw, err = d.number(fileMemsw)
	return l, err
}

// original is what both limits were before us.
func (r *Record) originalLimits(shown limits) limits {
	shown.memory = originalNumber(r.Fields[fileLimit], shown.memory)
	shown.memsw = originalNumber(r.Fields[fileMemsw], shown.memsw)
	return shown
}

// originalNumber is the original of a field where the kernel shows one of our
// values, and what is shown where it shows a foreign one.
func originalNumber(f *Field, shown uint64) uint64 {
	if !f.ours(strconv.FormatUint(shown, 10)) {
		return shown
	}
	n, err := strconv.ParseUint(f.Original, 10, 64)
	if err != nil {
		return shown
	}
	return n
}

// intendLimits notes both limits of want in rec.
func (r *Record) intendLimits(shown, want limits) {
	if want.memory != shown.memory {
		r.intend(fileLimit, strconv.FormatUint(shown.memory, 10), strconv.FormatUint(want.memory, 10))
	}
	if want.hasMemsw && want.memsw != shown.memsw {
		r.intend(fileMemsw, strconv.FormatUint(shown.memsw, 10), strconv.FormatUint(want.memsw, 10))
	}
}

// setLimits takes d from shown to want. The kernel insists that memory stays
// at or below memsw at every moment, so memsw goes up first and down last.
// ErrUsage (the kernel's EBUSY) says that usage does not fit; asking again
// does not help.
func (d *dir) setLimits(shown, want limits) error {
	steps := []struct {
		name     string
		old, new uint64
	}{
		{fileLimit, shown.memory, want.memory},
		{fileMemsw, shown.memsw, want.memsw},
	}
	if want.memory > shown.memory {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, s := range steps {
		if s.old == s.new {
			continue
		}
		err := d.write(s.name, strconv.FormatUint(s.new, 10))
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// squeezeTries bounds how often squeeze looks where usage is now.
const squeezeTries = 4

// squeeze lowers the limits of d from shown towards want, as far as usage
// allows, and returns ErrUsage if that is not the whole way. rec knows every
// value before it is written; save writes rec.
func (d *dir) squeeze(rec *Record, want limits, save func() error) error {
	var first error
	next := want
	for i := range uint64(squeezeTries) {
		shown, err := d.limits()
		if err != nil {
			return err
		}
		if first != nil && next.memory >= shown.memory {
			return first
		}
		rec.intendLimits(shown, next)
		if err := save(); err != nil {
			return err
		}
		err = d.setLimits(shown, next)
		if !errors.Is(err, ErrUsage) {
			return errors.Join(first, err)
		}
		if first == nil {
			first = err
		}
		usage, err := d.number(fileUsage)
		if err != nil {
			return err
		}
		// Pages that a processor has charged in advance come and go.
		floor := addBytes(usage, (1+16*i)*pageBytes)
		next = want.plus(max(floor, want.memory) - want.memory)
	}
	return first
}

// undoV1 undoes the kernel files of a version 1 record: the out-of-memory flag
// first, so that the kernel decides again whatever happens next.
func (s *FS) undoV1(d *dir, rec *Record) (left []string, err error) {
	if err := s.undoFlag(d, rec); err != nil {
		return nil, err
	}
	if rec.Fields[fileLimit] == nil && rec.Fields[fileMemsw] == nil {
		return nil, nil
	}
	shown, err := d.limits()
	if err != nil {
		return nil, err
	}
	want := rec.originalLimits(shown)
	save := func() error { return d.setRecord(rec) }
	err = d.squeeze(rec, want, save)
	if errors.Is(err, ErrUsage) && rec.Granted > 0 {
		// A resume verdict gave it this room for good; only borrowed room on
		// top of that goes.
		err = d.squeeze(rec, want.plus(rec.Granted), save)
		if err == nil || rec.Borrowed == 0 {
			left = append(left, fmt.Sprintf("%s: the limit stays raised by up to %d bytes, usage does not fit under the original", d.path, rec.Granted))
			err = nil
		}
	}
	if errors.Is(err, ErrUsage) {
		return left, nil // undoLate tries again
	}
	if err != nil {
		return left, err
	}
	delete(rec.Fields, fileLimit)
	delete(rec.Fields, fileMemsw)
	rec.Borrowed, rec.Granted = 0, 0
	s.changed("limit restored", d.path)
	return left, nil
}

// undoFlag puts the out-of-memory flag back.
func (s *FS) undoFlag(d *dir, rec *Record) error {
	f := rec.Fields[fileOOMControl]
	if f == nil {
		return nil
	}
	c, err := d.oomControl()
	if err != nil {
		return err
	}
	if f.ours(flagValue(c.killDisabled)) {
		if err := d.write(fileOOMControl, f.Original); err != nil {
			return err
		}
		s.changed("flag restored", d.path)
	}
	delete(rec.Fields, fileOOMControl)
	return nil
}

// clearInherited clears the out-of-memory flag of a cgroup that was created
// below an armed one, and so has it from there, and reports whether it was set.
func (s *FS) clearInherited(d *dir) (bool, error) {
	if !d.has(fileOOMControl) {
		return false, nil // version 2, or a cgroup that is being removed
	}
	c, err := d.oomControl()
	if err != nil || !c.killDisabled {
		return false, err
	}
	if err := d.write(fileOOMControl, "0"); err != nil {
		return false, err
	}
	s.changed("inherited flag cleared", d.path)
	return true, nil
}
