package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// recordXattr holds the undo record. It lives and dies with the cgroup,
	// and needs neither a disk nor the daemon that wrote it. The kernel takes
	// trusted.* attributes on cgroup directories since 3.7.
	recordXattr = "trusted.arbiter"
	// recordMax leaves some of the 64 KiB that the kernel allows for a value.
	recordMax = 60000
	// recordVersion is raised when an older release could not undo a record.
	recordVersion = 1
	// fieldHistory bounds Field.Ours. Only two values can ever be shown: the
	// one written last, and the one that was about to be written.
	fieldHistory = 8
	// nudgeBytes is what a limit is raised by to wake an out-of-memory
	// sleeper: the smallest step that the kernel sees as a raise.
	nudgeBytes = 4096
)

// A Record is what must be undone on one cgroup directory. It is written
// before the first change and again before every further one; whoever finds it
// without an owner undoes it, and only where the kernel still shows one of the
// values named here.
type Record struct {
	Version int `json:"v"`
	// Fields are the changed kernel files of the directory, by name.
	Fields map[string]*Field `json:"fields,omitempty"`
	// Borrowed and Granted are the bytes lent above the original limit.
	// Borrowed room is always taken back; granted room only if usage fits.
	Borrowed uint64 `json:"borrowed,omitempty"`
	Granted  uint64 `json:"granted,omitempty"`
	// Inherited says that our out-of-memory flag was set here, so that children
	// created since may have it from here. It goes last, after theirs are clear.
	Inherited bool `json:"inherited,omitempty"`
	// Flagged are descendants (relative paths) whose out-of-memory flag was
	// set before ours was: theirs is no inherited one. Version 1 only.
	Flagged []string `json:"flagged,omitempty"`
	// Freeze is set while we hold the tasks, or are about to.
	Freeze *FreezeRecord `json:"freeze,omitempty"`
	// Scores is set while oom_score_adj is changed. Version 2 only.
	Scores *ScoreRecord `json:"scores,omitempty"`
}

// A Field is one changed kernel file.
type Field struct {
	Original string   `json:"orig"`
	Ours     []string `json:"ours"` // what we wrote, or were about to write
	// NudgeFrom and NudgeTo span the nudges: values above From, up to and
	// including To, in steps of 4096. One entry covers a whole hold, so that
	// waking a sleeper does not wait for a record each time.
	NudgeFrom uint64 `json:"nudgeFrom,omitempty"`
	NudgeTo   uint64 `json:"nudgeTo,omitempty"`
}

// FreezeRecord tells how the tasks were stopped and how to let them go.
type FreezeRecord struct {
	Kind freezerKind `json:"kind"`
	// Path is the frozen directory in its own hierarchy, and Inode tells it
	// from a later one of the same name.
	Path  string `json:"path,omitempty"`
	Inode uint64 `json:"inode,omitempty"`
	// Foreign says that somebody else had frozen it before: it stays frozen.
	Foreign bool `json:"foreign,omitempty"`
	// Origin is where the processes came from (own freezer only), but for
	// those that Moved names.
	Origin string  `json:"origin,omitempty"`
	Moved  []Moved `json:"moved,omitempty"`
	// Stopped are the processes that were sent SIGSTOP.
	Stopped []Process `json:"stopped,omitempty"`
}

// A Process is a pid that cannot be taken for a later one.
type Process struct {
	Pid   int    `json:"p"`
	Start uint64 `json:"s"` // start time in clock ticks since boot
}

// Moved is a process that came from elsewhere than FreezeRecord.Origin.
type Moved struct {
	Process
	From string `json:"f"`
}

// ScoreRecord tells which oom_score_adj the tasks had: Base, but for those
// that Except names. Newcomers, which inherited −1000, get the base.
type ScoreRecord struct {
	Base   int     `json:"base"`
	Since  uint64  `json:"since,omitempty"` // clock ticks since boot, when the first was changed
	Except []Score `json:"except,omitempty"`
}

// Score is the oom_score_adj of a process that had another than the base.
type Score struct {
	Process
	Adj int `json:"a"`
}

// intend notes that value is about to be written to the kernel file name,
// which shows shown now. The first call for a file keeps shown as its original.
func (r *Record) intend(name, shown, value string) {
	f := r.Fields[name]
	if f == nil {
		if r.Fields == nil {
			r.Fields = map[string]*Field{}
		}
		f = &Field{Original: shown}
		r.Fields[name] = f
	}
	if value == f.Original {
		return
	}
	if i := slices.Index(f.Ours, value); i >= 0 {
		f.Ours = slices.Delete(f.Ours, i, i+1) // the newest is the last one
	} else if len(f.Ours) >= fieldHistory {
		f.Ours = slices.Delete(f.Ours, 0, 1)
	}
	f.Ours = append(f.Ours, value)
}

// adopt makes value, which somebody else wrote, the original of a file.
func (r *Record) adopt(name, value string) {
	if f := r.Fields[name]; f != nil {
		*f = Field{Original: value}
	}
}

// ours reports whether the kernel shows a value that we wrote, and that is not
// the original anyhow.
func (f *Field) ours(shown string) bool {
	if f == nil || shown == f.Original {
		return false
	}
	if slices.Contains(f.Ours, shown) {
		return true
	}
	n, err := strconv.ParseUint(shown, 10, 64)
	return err == nil && n > f.NudgeFrom && n <= f.NudgeTo && (n-f.NudgeFrom)%nudgeBytes == 0
}

// clone is a copy for other goroutines to read.
func (f *Field) clone() *Field {
	if f == nil {
		return nil
	}
	g := *f
	g.Ours = slices.Clone(f.Ours)
	return &g
}

// empty reports whether nothing is left to undo.
func (r *Record) empty() bool {
	return len(r.Fields) == 0 && r.Freeze == nil && r.Scores == nil && !r.Inherited
}

// parseRecord decodes an undo record. One of a later version is refused: to
// undo half of it could be worse than to leave it.
func parseRecord(b []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("parse undo record: %w", err)
	}
	if r.Version < 1 || r.Version > recordVersion {
		return nil, fmt.Errorf("parse undo record: version %d is not known", r.Version)
	}
	for name, f := range r.Fields {
		if f == nil {
			return nil, fmt.Errorf("parse undo record: field %q is null", name)
		}
	}
	return r, nil
}

// record reads the undo record of a directory; nil if there is none.
func (d *dir) record() (*Record, error) {
	buf := make([]byte, 4096)
	for {
		n := 0
		err := d.use(func(fd int) (err error) {
			n, err = unix.Fgetxattr(fd, recordXattr, buf)
			return err
		})
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
			return nil, nil
		case errors.Is(err, unix.ERANGE) && len(buf) < 1<<16:
			buf = make([]byte, 1<<16)
		case err != nil:
			return nil, fmt.Errorf("read undo record of %s: %w", d.path, d.gone(err))
		default:
			r, err := parseRecord(buf[:n])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", d.path, err)
			}
			return r, nil
		}
	}
}

// setRecord writes the undo record of a directory.
func (d *dir) setRecord(r *Record) error {
	r.Version = recordVersion
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode undo record of %s: %w", d.path, err)
	}
	if len(b) > recordMax {
		return fmt.Errorf("write undo record of %s: %d bytes, at most %d fit", d.path, len(b), recordMax)
	}
	if err := d.use(func(fd int) error { return unix.Fsetxattr(fd, recordXattr, b, 0) }); err != nil {
		return fmt.Errorf("write undo record of %s: %w", d.path, d.gone(err))
	}
	return nil
}

// dropRecord removes the undo record. A missing one is no error.
func (d *dir) dropRecord() error {
	err := d.use(func(fd int) error { return unix.Fremovexattr(fd, recordXattr) })
	if err != nil && !errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("remove undo record of %s: %w", d.path, d.gone(err))
	}
	return nil
}
