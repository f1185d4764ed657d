package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxMapsBytes = 32 << 20 // 65 530 mappings with long paths are 10 MiB
	maxLibraries = 8
)

// A library is a mapped file whose name suggests a runtime.
type library struct {
	kind Runtime
	file string // its /proc/PID/map_files entry: the inode itself, deleted or not
}

// mappedLibraries scans /proc/PID/maps for files whose names suggest a runtime
// and that are mapped executable.
func mappedLibraries(fs FS, pid int) ([]library, error) {
	f, err := os.Open(fs.Path(pid, "maps"))
	if err != nil {
		return nil, goneOr(err)
	}
	defer f.Close()
	maps, err := hintedMappings(io.LimitReader(f, maxMapsBytes))
	if err != nil {
		return nil, goneOr(err)
	}
	libs := make([]library, 0, len(maps))
	for _, m := range maps {
		entry := fmt.Sprintf("%x-%x", m.start, m.end)
		libs = append(libs, library{kind: m.kind, file: fs.Path(pid, "map_files", entry)})
	}
	return libs, nil
}

type hintedMapping struct {
	kind       Runtime
	start, end uint64
}

// hintedMappings parses maps, one mapping a line:
//
//	7f7c1a000000-7f7c1b2e6000 r-xp 0020a000 fe:00 1835 /usr/lib/jvm/lib/server/libjvm.so (deleted)
//
// A path may hold blanks; newlines in it are written as \012. Lines that are no
// mappings are skipped.
func hintedMappings(r io.Reader) ([]hintedMapping, error) {
	var out []hintedMapping
	seen := map[string]bool{}
	br := bufio.NewReaderSize(r, 64<<10)
	for len(out) < maxLibraries {
		line, err := br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				return out, nil
			}
			return nil, fmt.Errorf("read maps: %w", err)
		}
		m, file, ok := parseHinted(string(line))
		if !ok || seen[file] {
			continue
		}
		seen[file] = true
		out = append(out, m)
	}
	return out, nil
}

// parseHinted parses one line; file is the identity of the mapped file.
func parseHinted(line string) (m hintedMapping, file string, ok bool) {
	fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
	if len(fields) < 6 || len(fields[1]) < 3 || fields[1][2] != 'x' {
		return m, "", false
	}
	name := strings.TrimLeft(fields[5], " ")
	m.kind, ok = hint(path.Base(name))
	if !ok {
		return m, "", false
	}
	lo, hi, ok := strings.Cut(fields[0], "-")
	if !ok {
		return m, "", false
	}
	var err1, err2 error
	m.start, err1 = strconv.ParseUint(lo, 16, 64)
	m.end, err2 = strconv.ParseUint(hi, 16, 64)
	return m, fields[3] + " " + fields[4] + " " + name, err1 == nil && err2 == nil
}

// goneOr turns the errors of a process that is gone into ErrGone.
func goneOr(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}
