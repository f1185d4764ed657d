package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter"
	"github.com/arbiterd/arbiter/arbiter/api/server"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
)

// runDaemon guards containers until it is told to stop.
func runDaemon(ctx context.Context, o options) error {
	c, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	log := newLogger(c)
	link, err := openLink(o.link)
	if err != nil {
		return err
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("memory not locked: the daemon may be swapped out when it is needed", "error", err)
	}
	d, err := openDaemon(c, o, log)
	if err != nil {
		return err
	}
	defer d.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go signals(ctx, cancel, d.engine, log)
	go link.watch(ctx, cancel, d.engine)
	return d.run(ctx, link)
}

// daemon is what runDaemon holds open.
type daemon struct {
	cfg    config
	log    hclog.Logger
	fs     *cgroup.FS
	book   *casebook.Book
	engine *arbiter.Engine
	api    *server.Server
}

// openDaemon opens everything and changes nothing yet.
func openDaemon(c config, o options, log hclog.Logger) (*daemon, error) {
	fs, err := cgroup.Open(o.cgroupRoot, log.Named("cgroup"))
	if err != nil {
		return nil, err
	}
	book, err := casebook.Open(c.State.Dir, c.limits(), log.Named("casebook"))
	if err != nil {
		fs.Close()
		return nil, err
	}
	node, err := nodeBytes()
	if err != nil {
		return nil, err
	}
	from, err := sources(c, fs, log)
	if err != nil {
		return nil, err
	}
	engine, err := arbiter.New(arbiter.Options{
		FS: fs, Proc: proc.FS("/proc"), Book: book, Sources: from,
		Budget: c.budget(node), Uploads: uploads(c),
		Node:     arbiter.NodeLimits{MinAvailable: c.Node.MinAvailable.Of(node), MaxPressure: c.Node.MaxPressure},
		Recorder: arbiter.RecorderOptions{Interval: c.Recorder.Interval, Window: c.Recorder.Window},
		Load:     c.loadPolicy, Version: buildVersion(), Log: log,
	})
	if err != nil {
		book.Close()
		fs.Close()
		return nil, fmt.Errorf("policy: %w", err)
	}
	d := &daemon{cfg: c, log: log, fs: fs, book: book, engine: engine}
	d.api = server.New(engine, book, engine.Metrics(), server.Options{
		Socket: c.API.Socket, Group: c.API.Group, Log: log.Named("api"), Version: buildVersion(),
	})
	return d, nil
}

func (d *daemon) close() {
	if err := errors.Join(d.fs.Close(), d.book.Close()); err != nil {
		d.log.Warn("close", "error", err)
	}
}

// run releases what an earlier daemon left, then guards and answers until ctx
// is done.
func (d *daemon) run(ctx context.Context, link *link) error {
	if err := d.engine.Recover(ctx); err != nil {
		d.log.Error("release what an earlier daemon left", "error", err)
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	if err := d.api.Listen(); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- d.api.Serve(serving) }()
	if err := d.serveMetrics(serving); err != nil {
		return err
	}
	link.ready()
	d.log.Info("arbiterd is running", "version", buildVersion(), "cgroup_version", d.fs.Version(), "socket", d.cfg.API.Socket)
	err := d.engine.Run(ctx)
	stopServing()
	return errors.Join(err, <-served)
}

// serveMetrics answers /metrics on TCP, if configured.
func (d *daemon) serveMetrics(ctx context.Context) error {
	if d.cfg.Metrics.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", d.cfg.Metrics.Listen)
	if err != nil {
		return fmt.Errorf("metrics.listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", d.engine.Metrics())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("metrics", "error", err)
		}
	}()
	return nil
}

// signals ends ctx at SIGTERM and SIGINT, and reloads the policy at SIGHUP.
func signals(ctx context.Context, cancel context.CancelCauseFunc, e *arbiter.Engine, log hclog.Logger) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(ch)
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-ch:
			if s != unix.SIGHUP {
				cancel(fmt.Errorf("signal: %s", s))
				return
			}
			if _, err := e.Reload(ctx, "SIGHUP"); err != nil {
				log.Error("reload", "error", err)
			}
		}
	}
}

func newLogger(c config) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "arbiterd", Level: hclog.LevelFromString(c.Log.Level), JSONFormat: c.Log.Format == "json",
		// journald stamps every line itself.
		DisableTime: os.Getenv("JOURNAL_STREAM") != "" && c.Log.Format != "json",
	})
}

// nodeBytes is the node's memory.
func nodeBytes() (uint64, error) {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0, fmt.Errorf("sysinfo: %w", err)
	}
	return si.Totalram * uint64(si.Unit), nil
}

// selfPath is the running program; an upgrade may have removed its file.
func selfPath() string {
	if self, err := os.Executable(); err == nil {
		if _, err := os.Stat(self); err == nil {
			return self
		}
	}
	return "/proc/self/exe"
}
