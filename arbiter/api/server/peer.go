package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A peer is who is at the other end of a connection, as the kernel recorded it
// when the connection was made (unix(7), SO_PEERCRED).
type peer struct {
	pid    int
	uid    uint32
	gid    uint32
	groups []uint32 // supplementary
	err    error
}

type peerKey struct{}

// withPeer notes the peer of a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOf(c))
}

// PeerPid is the process that a request came from, 0 if it is not known. It
// may be gone, and its number used again.
func PeerPid(ctx context.Context) int {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p.pid
}

func peerOf(c net.Conn) peer {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return peer{err: fmt.Errorf("not a unix socket")}
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	var p peer
	if err := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, p.err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); p.err == nil {
			p.pid, p.uid, p.gid = int(cred.Pid), cred.Uid, cred.Gid
			p.groups, p.err = peerGroups(int(fd))
		}
	}); err != nil {
		p.err = err
	}
	return p
}

// peerGroups reads SO_PEERGROUPS (since Linux 4.13): an array of gid_t.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, fmt.Errorf("getsockopt SO_PEERGROUPS: %w", errno)
		}
	}
}

// access decides what peers may do.
type access struct {
	self  uint32 // the daemon's own uid
	group uint32
	// grouped says that members of group may read.
	grouped bool
}

func newAccess(group string) (access, error) {
	a := access{self: uint32(os.Geteuid())}
	if group == "" {
		return a, nil
	}
	gid, err := lookupGroup(group)
	if err != nil {
		return a, err
	}
	a.group, a.grouped = gid, true
	return a, nil
}

func lookupGroup(name string) (uint32, error) {
	id := name
	if g, err := user.LookupGroup(name); err == nil {
		id = g.Gid
	}
	gid, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("[api] group %q does not exist", name)
	}
	return uint32(gid), nil
}

func (a access) mayWrite(p peer) bool {
	return p.err == nil && (p.uid == 0 || p.uid == a.self)
}

func (a access) mayRead(p peer) bool {
	return a.mayWrite(p) || p.err == nil && a.grouped && (p.gid == a.group || slices.Contains(p.groups, a.group))
}

// guard lets a request through only if its peer may make it.
func (a access) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		write := r.Method != http.MethodGet && r.Method != http.MethodHead
		switch {
		case !ok || p.err != nil:
			fail(w, http.StatusForbidden, "the peer of this connection is not known")
		case write && !a.mayWrite(p):
			fail(w, http.StatusForbidden, fmt.Sprintf("uid %d may only look: this needs root", p.uid))
		case !a.mayRead(p):
			fail(w, http.StatusForbidden, fmt.Sprintf("uid %d is neither root nor in the API's group", p.uid))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// operator names the peer in a case's record.
func operator(r *http.Request) string {
	p, _ := r.Context().Value(peerKey{}).(peer)
	return fmt.Sprintf("uid %d", p.uid)
}
