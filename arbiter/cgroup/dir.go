package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A dir is one open cgroup directory. All access goes through its descriptor,
// so that a directory of the same name made later is never taken for it.
type dir struct {
	f    *os.File
	path string // relative to the hierarchy's mount, with a leading slash
	ino  uint64
	kept map[string]*os.File // see keep
}

// openDir opens path under the hierarchy mounted at mount.
func openDir(mount, path string) (*dir, error) {
	fd, err := unix.Open(filepath.Join(mount, path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", path, goneOr(err))
	}
	return newDir(fd, path)
}

// newDir takes over the descriptor of an open directory.
func newDir(fd int, path string) (*dir, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("stat cgroup %s: %w", path, goneOr(err))
	}
	return &dir{f: os.NewFile(uintptr(fd), path), path: path, ino: st.Ino}, nil
}

// use runs f with the descriptor, which stays open meanwhile: its number is
// given out again the moment it is closed.
func (d *dir) use(f func(fd int) error) error {
	conn, err := d.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", d.path, os.ErrClosed)
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return fmt.Errorf("cgroup %s: %w", d.path, os.ErrClosed)
	}
	return inner
}

// openat opens a name in the directory.
func (d *dir) openat(name string, flags int) (fd int, err error) {
	err = d.use(func(at int) error {
		fd, err = unix.Openat(at, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		return err
	})
	return fd, err
}

// close lets go of the directory. There is nothing that its failure could lose.
func (d *dir) close() {
	for _, f := range d.kept {
		f.Close()
	}
	d.f.Close()
}

// keep opens files for reading and writing ahead of time, so that the hold
// path opens none. One that does not exist is not kept. cgroup.procs of
// version 1 must not be: an open one shows an old list.
func (d *dir) keep(names ...string) {
	d.kept = map[string]*os.File{}
	for _, name := range names {
		f, err := d.open(name, unix.O_RDWR)
		if err != nil {
			f, err = d.open(name, unix.O_RDONLY)
		}
		if err == nil {
			d.kept[name] = f
		}
	}
}

// open opens a file of the cgroup.
func (d *dir) open(name string, flags int) (*os.File, error) {
	fd, err := d.openat(name, flags)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", name, d.path, d.gone(err))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// read returns the whole of a file of the cgroup.
func (d *dir) read(name string) ([]byte, error) {
	f := d.kept[name]
	if f == nil {
		var err error
		if f, err = d.open(name, unix.O_RDONLY); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	b := make([]byte, 0, 4096)
	for {
		n, err := f.ReadAt(b[len(b):cap(b)], int64(len(b)))
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, d.path, d.gone(err))
		}
		b = slices.Grow(b, 4096)
	}
}

// value is a file that holds one word, without its newline.
func (d *dir) value(name string) (string, error) {
	b, err := d.read(name)
	return strings.TrimSpace(string(b)), err
}

// number is a file that holds one number.
func (d *dir) number(name string) (uint64, error) {
	v, err := d.value(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s of %s: %w", name, d.path, err)
	}
	return n, nil
}

// write puts value into a file of the cgroup in one write(2).
func (d *dir) write(name, value string) error {
	f := d.kept[name]
	if f == nil {
		var err error
		if f, err = d.open(name, unix.O_WRONLY); err != nil {
			return err
		}
		defer f.Close()
	}
	if _, err := f.WriteAt([]byte(value), 0); err != nil {
		return fmt.Errorf("write %s=%s of %s: %w", name, value, d.path, d.gone(err))
	}
	return nil
}

// alive reports whether the directory still exists. The kernel keeps an open
// directory readable after rmdir, but it has no files any more.
func (d *dir) alive() bool {
	return d.has("cgroup.procs")
}

// has reports whether the kernel offers a file here.
func (d *dir) has(name string) bool {
	return d.use(func(fd int) error { return unix.Faccessat(fd, name, unix.F_OK, 0) }) == nil
}

// gone turns the errors of a removed cgroup into ErrGone. ENOENT also means
// that this kernel lacks a file, hence the look at the directory.
func (d *dir) gone(err error) error {
	if isGone(err) && !d.alive() {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return err
}

func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}

// goneOr is gone for a directory that could not be opened at all.
func goneOr(err error) error {
	if isGone(err) {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return err
}

// children names the child cgroups. One that vanishes meanwhile is left out.
func (d *dir) children() ([]string, error) {
	f, err := d.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, fmt.Errorf("list cgroup %s: %w", d.path, d.gone(err))
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// child opens a child cgroup.
func (d *dir) child(name string) (*dir, error) {
	fd, err := d.openat(name, unix.O_RDONLY|unix.O_DIRECTORY)
	path := filepath.Join(d.path, name)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", path, goneOr(err))
	}
	return newDir(fd, path)
}

// walk calls f for d and every cgroup below it, parents first. f must not keep
// the directories; one that vanishes meanwhile is skipped.
func (d *dir) walk(f func(*dir) error) error {
	if err := f(d); err != nil {
		return err
	}
	names, err := d.children()
	if err != nil {
		return ignoreGone(err)
	}
	for _, name := range names {
		c, err := d.child(name)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		err = c.walk(f)
		c.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}
