package proc

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxDescriptors bounds how many open files of a process are looked at.
const maxDescriptors = 1 << 16

// Listeners are the TCP addresses on which the process itself listens, in its
// own network namespace. A wildcard is given as the loopback addresses, where
// it answers too. Lowest port first.
func (fs FS) Listeners(pid int) ([]netip.AddrPort, error) {
	own, err := fs.sockets(pid)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		all, err := parse(fs, pid, name, parseTCP)
		if err != nil {
			return nil, err
		}
		for _, l := range all {
			if own[l.inode] {
				out = append(out, reachable(l.addr)...)
			}
		}
	}
	slices.SortFunc(out, func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(a.Port(), b.Port()), a.Addr().Compare(b.Addr()))
	})
	return slices.Compact(out), nil
}

// reachable are the addresses to dial for one that is listened on. An IPv6
// wildcard usually answers on IPv4 as well, and ::1 may not exist.
func reachable(l netip.AddrPort) []netip.AddrPort {
	a := l.Addr().Unmap()
	v4 := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), l.Port())
	switch {
	case !a.IsUnspecified():
		return []netip.AddrPort{netip.AddrPortFrom(a, l.Port())}
	case a.Is4():
		return []netip.AddrPort{v4}
	}
	return []netip.AddrPort{v4, netip.AddrPortFrom(netip.IPv6Loopback(), l.Port())}
}

// sockets are the inodes of the sockets that the process has open.
func (fs FS) sockets(pid int) (map[uint64]bool, error) {
	dir, err := fs.open(pid, "fd")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxDescriptors)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fileError(pid, "fd", err)
	}
	own := map[uint64]bool{}
	for _, name := range names {
		link, err := os.Readlink(fs.Path(pid, "fd", name))
		if err != nil {
			continue // closed meanwhile
		}
		digits, ok := strings.CutPrefix(strings.TrimSuffix(link, "]"), "socket:[")
		if inode, err := strconv.ParseUint(digits, 10, 64); ok && err == nil {
			own[inode] = true
		}
	}
	return own, nil
}

type listener struct {
	addr  netip.AddrPort
	inode uint64
}

// parseTCP parses the listening sockets (state 0A) of
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
//	 0: 0100007F:240D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 38372 1 ...
//
// An address is written as 32-bit words in the machine's byte order.
func parseTCP(r io.Reader) ([]listener, error) {
	var out []listener
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 10 || f[3] != "0A" {
			continue
		}
		addr, err := parseTCPAddr(f[1])
		if err != nil {
			return nil, err
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("inode: %w", err)
		}
		out = append(out, listener{addr, inode})
	}
	return out, sc.Err()
}

func parseTCPAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("no address in %.80q", s)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of %.80q: %w", s, err)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(n)), nil
}
