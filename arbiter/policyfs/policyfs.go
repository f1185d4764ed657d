// Package policyfs reads policy files from the directories in which the
// distribution, the administrator and whoever runs the node put them. The
// daemon and `arbiterctl lint` read alike.
//
// A later directory masks a file of the same name in an earlier one; a symlink
// to /dev/null, or an empty file, masks it with nothing. All files are then
// sorted by name. Only *.toml counts, and names that begin with a dot do not.
//
// Whoever can write a policy can run commands as root (`exec`), so a file or
// directory that others may write is refused.
package policyfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/policy"
)

// DefaultDirs are the directories of arbiter.toml's [policy] dirs, by default.
func DefaultDirs() []string {
	return []string{"/usr/lib/arbiter/policy.d", "/etc/arbiter/policy.d", "/run/arbiter/policy.d"}
}

const (
	maxFile = 16 << 20
	// tries bounds how often a set that changes under our eyes is read again.
	tries = 8
)

// ErrChanging says that the files never stood still.
var ErrChanging = errors.New("keeps changing while it is read")

// Load reads the directories as one consistent set, in the order in which
// rules are tried. A directory that does not exist holds nothing. On error the
// files are those that could be read: good for lint, not for the daemon.
func Load(dirs []string) ([]policy.File, error) {
	var moved error
	for range tries {
		before, err := look(dirs)
		if err != nil {
			return nil, err
		}
		files, err := readAll(before.winners)
		after, lerr := look(dirs)
		if lerr == nil && before.same(after) && !errors.Is(err, ErrChanging) {
			return files, errors.Join(append(before.refused, err)...)
		}
		moved = errors.Join(err, lerr)
	}
	if moved != nil {
		return nil, moved
	}
	return nil, fmt.Errorf("%s: %w", strings.Join(dirs, ", "), ErrChanging)
}

// ReadFiles reads files and directories that somebody named, in that order.
func ReadFiles(paths []string) ([]policy.File, error) {
	var files []policy.File
	var errs []error
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if info.IsDir() {
			more, err := Load([]string{path})
			files, errs = append(files, more...), append(errs, err)
			continue
		}
		more, err := readAll([]string{path})
		files, errs = append(files, more...), append(errs, err)
	}
	return files, errors.Join(errs...)
}

// A view is what the directories hold at one moment.
type view struct {
	winners []string // paths, sorted by file name
	stamps  []string // one a directory: changes if it is swapped or written to
	refused []error
}

func (v view) same(w view) bool {
	return slices.Equal(v.winners, w.winners) && slices.Equal(v.stamps, w.stamps)
}

func look(dirs []string) (view, error) {
	var v view
	byName := map[string]string{}
	for _, dir := range dirs {
		stamp, err := stampDir(dir)
		v.stamps = append(v.stamps, stamp)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			v.refused = append(v.refused, err)
			continue
		}
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return v, fmt.Errorf("policy directory: %w", err)
		}
		for _, e := range entries {
			name := e.Name()
			if strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".") {
				byName[name] = filepath.Join(dir, name)
			}
		}
	}
	for _, path := range byName {
		v.winners = append(v.winners, path)
	}
	slices.SortFunc(v.winners, func(a, b string) int {
		return strings.Compare(filepath.Base(a), filepath.Base(b))
	})
	return v, nil
}

// stampDir tells two states of a directory apart. The kubelet publishes a
// ConfigMap by swapping the symlink ..data, which the files' symlinks lead
// through; others swap the directory itself.
func stampDir(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", &fs.PathError{Op: "policy directory", Path: dir, Err: err}
	}
	data, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		data = ""
	}
	stamp := fmt.Sprintf("%d:%d %d.%d %s", st.Dev, st.Ino, st.Mtim.Sec, st.Mtim.Nsec, data)
	return stamp, trustDir(dir, &st)
}

// trustDir refuses a directory in which others could put files. A ConfigMap's
// is 0777, but mounted read-only.
func trustDir(dir string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("policy directory %s: not a directory", dir)
	}
	err := trust(st)
	if err == nil || st.Mode&unix.S_ISVTX != 0 {
		return nil
	}
	var sf unix.Statfs_t
	if unix.Statfs(dir, &sf) == nil && sf.Flags&unix.ST_RDONLY != 0 {
		return nil
	}
	return fmt.Errorf("policy directory %s: %w", dir, err)
}

// trust says who else could write the file.
func trust(st *unix.Stat_t) error {
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("belongs to uid %d; it must belong to root (chown root)", st.Uid)
	case st.Mode&0o002 != 0:
		return fmt.Errorf("everybody may write it, mode %04o; refused (chmod o-w)", st.Mode&0o7777)
	case st.Mode&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid():
		return fmt.Errorf("group %d may write it, mode %04o; refused (chmod g-w)", st.Gid, st.Mode&0o7777)
	}
	return nil
}

func readAll(paths []string) ([]policy.File, error) {
	var files []policy.File
	var errs []error
	for _, path := range paths {
		data, err := read(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("policy file %s: %w", path, err))
			continue
		}
		files = append(files, policy.File{Name: path, Data: data})
	}
	return files, errors.Join(errs...)
}

// read reads one file that stands still meanwhile.
func read(path string) ([]byte, error) {
	// Without O_NONBLOCK a FIFO would hang us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	before, err := stat(f)
	if err != nil {
		return nil, err
	}
	if before.Mode&unix.S_IFMT == unix.S_IFCHR && before.Rdev == unix.Mkdev(1, 3) {
		return nil, nil // /dev/null masks
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("not a regular file")
	}
	if err := trust(before); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %s", policy.FormatBytes(maxFile))
	}
	after, err := stat(f)
	if err != nil {
		return nil, err
	}
	if before.Mtim != after.Mtim || before.Size != after.Size {
		return nil, ErrChanging
	}
	return data, nil
}

func stat(f *os.File) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	return &st, nil
}

// cause is an error without the path that its message will begin with anyway.
func cause(err error) error {
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		return perr.Err
	}
	return err
}
