package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

const (
	maxProfile   = 256 << 20
	probeTimeout = 2 * time.Second
)

// A pprofServer is a program's pprof handler, inside its network namespace.
type pprofServer struct {
	client *http.Client
	addr   netip.AddrPort
	path   string
}

func newPprof(env Env, pid int, addr netip.AddrPort, path string) *pprofServer {
	return &pprofServer{client: clientIn(env.Proc, pid, addr), addr: addr, path: strings.TrimRight(path, "/")}
}

// clientIn is an HTTP client that reaches one address in the network namespace
// of a process, whatever a URL or a redirect names.
func clientIn(fs proc.FS, pid int, addr netip.AddrPort) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// The body is kept as it is sent; what asks for no decompression
			// cannot be made to decompress without bound.
			DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return fs.DialTCP(ctx, pid, addr)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (p *pprofServer) String() string { return "http://" + p.addr.String() + p.path }

// get fetches one profile.
func (p *pprofServer) get(ctx context.Context, profile string) ([]byte, error) {
	url := p.String() + "/" + profile
	b, err := fetch(ctx, p.client, url, maxProfile)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	return b, nil
}

// fetch is a GET with a bounded answer.
func fetch(ctx context.Context, client *http.Client, url string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", printable(resp.Status, 80))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("the answer is over %d bytes", limit)
	}
	return b, err
}

// findPprof looks for the usual handler among the addresses that a Go program
// listens on itself.
func findPprof(ctx context.Context, env Env, pid int) (*pprofServer, error) {
	addrs, err := env.Proc.Listeners(pid)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		p := newPprof(env, pid, addr, "/debug/pprof")
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		_, err := p.get(probe, "cmdline")
		cancel()
		if err == nil {
			return p, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("go process %d: %w on %d addresses that it listens on", pid, errNoPprof, len(addrs))
}

var errNoPprof = errors.New("no /debug/pprof")
