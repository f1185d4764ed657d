// Package nri is the source of containers that is told of them before they
// run: a plugin of the Node Resource Interface, which containerd and CRI-O
// call at each step of a container's life.
//
// The plugin lives in the daemon and connects to the runtime's socket. When
// StartContainer is called the container's cgroup exists and holds nothing but
// the runtime's own init process, so a guard that is armed in this hook is
// there before the first instruction of the workload. Every other hook only
// takes notes. A hook that took longer than the runtime's limit (2 s) would
// get the plugin disconnected, so the wait for the guard is bounded well below
// and containers start unguarded rather than late.
//
// Whenever the plugin connects, the runtime tells it of everything that
// exists; it reconnects for ever. While it is away containers start without
// it, unless the runtime requires it by name (default_validator's
// required_plugins).
package nri

import (
	"context"
	"errors"
	"fmt"
	stdnet "net"
	"regexp"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/cri"
)

const (
	// DefaultSocket is where runtimes listen for plugins.
	DefaultSocket = "/var/run/nri/nri.sock"
	// DefaultIndex is the plugin's place among others: the lowest come first.
	DefaultIndex = "10"
	// PluginName is the name under which a runtime can require the plugin.
	PluginName = "arbiter"
)

// Config says which runtime to join. Zero fields have defaults.
type Config struct {
	Socket     string       // DefaultSocket
	Index      string       // two digits; DefaultIndex
	MemoryRoot string       // the mount of the memory hierarchy; required
	ProcRoot   string       // "/proc"
	Log        hclog.Logger // of what the stub says and of guards that came late; none
}

// A Source is the plugin.
type Source struct {
	cfg Config
}

// New makes a source. It does not connect yet.
func New(cfg Config) (*Source, error) {
	if cfg.MemoryRoot == "" {
		return nil, errors.New("nri source: no memory hierarchy")
	}
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Index == "" {
		cfg.Index = DefaultIndex
	}
	if !regexp.MustCompile(`^[0-9]{2}$`).MatchString(cfg.Index) {
		return nil, fmt.Errorf("nri source: index %q: must be two digits", cfg.Index)
	}
	if cfg.ProcRoot == "" {
		cfg.ProcRoot = "/proc"
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	return &Source{cfg: cfg}, nil
}

// Name is "nri".
func (*Source) Name() string { return "nri" }

const (
	retryMin = 100 * time.Millisecond
	retryMax = time.Second
	// startTimeout bounds registration: a runtime that accepts the connection
	// and then dies or says nothing must not hold us up.
	startTimeout = 10 * time.Second
)

// Run reports containers until ctx is done, which is no error. The runtime may
// start later than it, and come and go.
func (s *Source) Run(ctx context.Context, emit func(cri.Event), health func(error)) error {
	p := newPlugin(s.cfg)
	var deliver sync.WaitGroup
	defer deliver.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	deliver.Go(func() { p.queue.deliver(ctx, emit) })

	pause := retryMin
	for {
		err := s.serve(ctx, p, func() {
			pause = retryMin
			health(nil)
		})
		if ctx.Err() != nil {
			return nil
		}
		health(fmt.Errorf("nri %s: %w", s.cfg.Socket, err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

// serve joins the runtime once and returns when the connection ends.
func (s *Source) serve(ctx context.Context, p *plugin, up func()) error {
	conn, err := (&stdnet.Dialer{Timeout: startTimeout}).DialContext(ctx, "unix", s.cfg.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	closed := make(chan struct{})
	st, err := stub.New(p,
		stub.WithConnection(conn),
		stub.WithPluginName(PluginName),
		stub.WithPluginIdx(s.cfg.Index),
		stub.WithLogger(stubLog{s.cfg.Log}),
		stub.WithFailurePolicy(&api.FailurePolicy{KeepConnected: true}),
		stub.WithOnClose(sync.OnceFunc(func() { close(closed) })))
	if err != nil {
		return err
	}
	if err := start(ctx, st); err != nil {
		return err
	}
	defer st.Stop()
	up()
	select {
	case <-closed:
		return errors.New("the runtime closed the connection")
	case <-p.queue.overflow():
		return errors.New("more events than could be dealt with: asking for everything anew")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start registers the plugin. The stub waits for the runtime's configuration
// without a limit, and would wait for ever on a runtime that died meanwhile:
// then it is left to itself, and its connection is closed by the caller.
func start(ctx context.Context, st stub.Stub) error {
	started := make(chan error, 1)
	go func() { started <- st.Start(ctx) }()
	select {
	case err := <-started:
		return err
	case <-time.After(startTimeout):
		return errors.New("the runtime does not configure the plugin")
	case <-ctx.Done():
		return ctx.Err()
	}
}
