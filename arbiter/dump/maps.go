package dump

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// pageSize of amd64: the unit of pagemap and of everything in a core.
const pageSize = 4096

// A vma is one mapping of a process as /proc/PID/smaps shows it.
type vma struct {
	Start, End uint64
	Read       bool
	Write      bool
	Exec       bool
	Shared     bool // MAP_SHARED
	Offset     uint64
	Device     string // "08:01"
	Inode      uint64
	Name       string // as the kernel prints it, unescaped; a container may choose it

	RSSKiB, SwapKiB, AnonKiB uint64

	DontDump bool // VmFlags dd: madvise(MADV_DONTDUMP)
	IO       bool // io or pf: device memory, has no pages to read
	Huge     bool // ht: hugetlbfs
}

func (v vma) size() uint64 { return v.End - v.Start }

// file reports whether the mapping has a file behind it. Anonymous shared
// memory has one too, in the kernel's own tmpfs.
func (v vma) file() bool { return v.Inode != 0 }

// parseSmaps reads /proc/PID/smaps:
//
//	7f0a1c000000-7f0a1c021000 rw-p 00000000 08:01 1234    /usr/lib/libc.so.6
//	Rss:                 132 kB
//	Anonymous:           132 kB
//	Swap:                  0 kB
//	VmFlags: rd wr mr mw me nr sd
//
// Keys that it does not know are skipped: kernels add some.
func parseSmaps(r io.Reader) ([]vma, error) {
	var vmas []vma
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("parse smaps: line longer than %d bytes", br.Size())
		}
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 {
			if perr := smapsLine(&vmas, line); perr != nil {
				return nil, fmt.Errorf("parse smaps: %w", perr)
			}
		}
		if err == io.EOF {
			return vmas, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read smaps: %w", err)
		}
	}
}

func smapsLine(vmas *[]vma, line []byte) error {
	// Field keys start with a capital letter, addresses with a hex digit in
	// lower case: the two cannot be taken for each other.
	if c := line[0]; c < 'A' || c > 'Z' {
		v, err := parseMapsLine(string(line))
		if err != nil {
			return err
		}
		if n := len(*vmas); n > 0 && v.Start < (*vmas)[n-1].End {
			return fmt.Errorf("mapping %#x begins inside the one before", v.Start)
		}
		*vmas = append(*vmas, v)
		return nil
	}
	if len(*vmas) == 0 {
		return fmt.Errorf("field %.20q before any mapping", line)
	}
	v := &(*vmas)[len(*vmas)-1]
	key, value, _ := bytes.Cut(line, []byte(":"))
	switch string(key) {
	case "Rss":
		return parseKiB(&v.RSSKiB, value)
	case "Swap":
		return parseKiB(&v.SwapKiB, value)
	case "Anonymous":
		return parseKiB(&v.AnonKiB, value)
	case "VmFlags":
		for flag := range bytes.FieldsSeq(value) {
			switch string(flag) {
			case "dd":
				v.DontDump = true
			case "io", "pf":
				v.IO = true
			case "ht":
				v.Huge = true
			}
		}
	}
	return nil
}

func parseKiB(to *uint64, value []byte) error {
	number, unit, _ := bytes.Cut(bytes.TrimSpace(value), []byte(" "))
	n, err := strconv.ParseUint(string(number), 10, 54)
	if err != nil || string(unit) != "kB" {
		return fmt.Errorf("size %.30q", value)
	}
	*to = n
	return nil
}

// parseMapsLine reads one line of /proc/PID/maps, which is also the head line
// of each mapping in smaps.
func parseMapsLine(line string) (vma, error) {
	var v vma
	bad := func(what string) (vma, error) {
		return vma{}, fmt.Errorf("mapping %.80q: bad %s", line, what)
	}
	addresses, rest, _ := strings.Cut(line, " ")
	from, to, _ := strings.Cut(addresses, "-")
	var err1, err2 error
	v.Start, err1 = strconv.ParseUint(from, 16, 64)
	v.End, err2 = strconv.ParseUint(to, 16, 64)
	if err1 != nil || err2 != nil || v.Start >= v.End || (v.Start|v.End)%pageSize != 0 {
		return bad("addresses")
	}
	perms, rest, _ := strings.Cut(rest, " ")
	if len(perms) != 4 {
		return bad("permissions")
	}
	v.Read, v.Write, v.Exec, v.Shared = perms[0] == 'r', perms[1] == 'w', perms[2] == 'x', perms[3] == 's'
	offset, rest, _ := strings.Cut(rest, " ")
	if v.Offset, err1 = strconv.ParseUint(offset, 16, 64); err1 != nil {
		return bad("offset")
	}
	v.Device, rest, _ = strings.Cut(rest, " ")
	inode, name, _ := strings.Cut(rest, " ")
	if v.Inode, err1 = strconv.ParseUint(inode, 10, 64); err1 != nil {
		return bad("inode")
	}
	// The kernel escapes only newlines in names.
	v.Name = strings.ReplaceAll(strings.TrimLeft(name, " "), `\012`, "\n")
	return v, nil
}
