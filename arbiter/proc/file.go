package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a file whose length the target decides
// (command line, mappings).
const maxFile = 32 << 20

// open opens a file of process pid for a parser. What it fails with when the
// process is gone wraps ErrGone.
func (fs FS) open(pid int, name string) (*os.File, error) {
	f, err := os.Open(fs.Path(pid, name))
	if err != nil {
		return nil, fileError(pid, name, err)
	}
	return f, nil
}

// parse opens a file of process pid and hands it to a parser. A process can
// also end between the two: then the read fails with ESRCH, or is empty.
func parse[T any](fs FS, pid int, name string, parser func(io.Reader) (T, error)) (T, error) {
	f, err := fs.open(pid, name)
	if err != nil {
		var none T
		return none, err
	}
	defer f.Close()
	v, err := parser(io.LimitReader(f, maxFile))
	if err != nil {
		return v, fileError(pid, name, err)
	}
	return v, nil
}

func fileError(pid int, name string, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		err = ErrGone
	}
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("read %s of process %d: %w", name, pid, err)
}

// number parses a file of one decimal number.
func number(r io.Reader) (int, error) {
	b, err := io.ReadAll(io.LimitReader(r, 64))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// line reads a file of one line.
func line(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, 4096))
	return strings.TrimSuffix(string(b), "\n"), err
}
