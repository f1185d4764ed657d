package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/casebook"
)

// ErrInUse says that a live daemon answers on the socket.
var ErrInUse = errors.New("another daemon answers on it")

const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// writeTimeout is how long a peer may leave a part of an answer unread.
	writeTimeout    = 30 * time.Second
	shutdownTimeout = 2 * time.Second
	maxHeader       = 16 << 10
	maxBody         = 64 << 10
)

// Options say where to listen.
type Options struct {
	Socket  string // path
	Group   string // name or number of the group that may read, artifacts too; "" is none
	Version string // of the daemon, for the header Server
	Log     hclog.Logger
}

// A Server is the API on one unix socket.
type Server struct {
	backend Backend
	book    *casebook.Book
	metrics http.Handler
	opts    Options
	access  access
	ln      net.Listener
}

// New makes a server. metrics answers /metrics.
func New(b Backend, book *casebook.Book, metrics http.Handler, o Options) *Server {
	return &Server{backend: b, book: book, metrics: metrics, opts: o}
}

// Listen makes the socket: from then on clients wait instead of failing.
// ErrInUse if a live daemon has it.
func (s *Server) Listen() (err error) {
	if s.access, err = newAccess(s.opts.Group); err != nil {
		return fmt.Errorf("listen on %s: %w", s.opts.Socket, err)
	}
	if s.ln, err = listen(s.opts.Socket, s.access); err != nil {
		return fmt.Errorf("listen on %s: %w", s.opts.Socket, err)
	}
	return nil
}

// Serve answers until ctx is done, and returns nil then. It listens first if
// Listen was not called.
func (s *Server) Serve(ctx context.Context) error {
	if s.ln == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	srv := &http.Server{
		Handler:           s.access.guard(s.routes()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withPeer,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          s.opts.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(s.ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", s.opts.Socket, err)
	case <-ctx.Done():
	}
	// Streams end with ctx; whatever else still runs is cut off.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		return srv.Close()
	}
	return nil
}

// listen makes the socket, and removes one that a dead daemon left.
func listen(path string, a access) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	gid := -1
	if a.grouped {
		gid = int(a.group)
	}
	// Until here anybody may connect, and is refused by credentials.
	if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file of that name exists and is not a socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return ErrInUse
	}
	// Only a refusal proves that nobody listens: a full backlog does not.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w or may: %w", ErrInUse, err)
	}
	return os.Remove(path)
}
