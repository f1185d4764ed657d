package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/websocket"
	"golang.org/x/sys/unix"

	"github.com/arbiterd/arbiter/arbiter/proc"
)

const (
	inspectorWait = 10 * time.Second
	inspectorPoll = 10 * time.Millisecond
	maxMessage    = 64 << 20
)

// An inspector is a connection to Node's debugger (the Chrome DevTools
// protocol over a websocket), inside the process' network namespace.
type inspector struct {
	ws   *websocket.Conn
	next int
	ours bool // we opened it, and close it again
	stop func() bool
}

// openInspector connects to the debugger of a Node process, and has it opened
// by SIGUSR1 first if need be. It answers within 10 to 64 ms.
func openInspector(ctx context.Context, env Env, pid int) (*inspector, error) {
	before, err := env.Proc.Listeners(pid)
	if err != nil {
		return nil, err
	}
	if i, err := findInspector(ctx, env, pid, before); err == nil {
		return i, nil
	}
	if err := signalNode(ctx, env, pid); err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, inspectorWait)
	defer cancel()
	tick := time.NewTicker(inspectorPoll)
	defer tick.Stop()
	for {
		select {
		case <-wait.Done():
			return nil, fmt.Errorf("node process %d opened no inspector after SIGUSR1 (its port may be taken by another process): %w", pid, wait.Err())
		case <-tick.C:
		}
		now, err := env.Proc.Listeners(pid)
		if err != nil {
			return nil, err
		}
		if i, err := findInspector(ctx, env, pid, fresh(now, before)); err == nil {
			i.ours = true
			return i, nil
		}
	}
}

func fresh(now, before []netip.AddrPort) []netip.AddrPort {
	known := map[netip.AddrPort]bool{}
	for _, a := range before {
		known[a] = true
	}
	var out []netip.AddrPort
	for _, a := range now {
		if !known[a] {
			out = append(out, a)
		}
	}
	return out
}

// signalNode sends SIGUSR1 if Node catches it. A process that does not dies of
// it: --disable-sigusr1, a build without the inspector, or no Node at all. One
// that handles it by itself does what it likes with it.
func signalNode(ctx context.Context, env Env, pid int) error {
	p, err := env.Proc.OpenProcess(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	rt, err := proc.DetectRuntime(ctx, env.Proc, pid)
	if err != nil {
		return err
	}
	s, err := env.Proc.Status(pid)
	if err != nil {
		return err
	}
	const bit = 1 << (unix.SIGUSR1 - 1)
	if rt != proc.Node || s.SigCaught&bit == 0 || s.SigIgnored&bit != 0 {
		return fmt.Errorf("%w: process %d (%s) does not catch SIGUSR1 and would die of it", errNoDump, pid, rt)
	}
	return p.Signal(unix.SIGUSR1)
}

// findInspector tries the addresses that the process itself listens on.
func findInspector(ctx context.Context, env Env, pid int, addrs []netip.AddrPort) (*inspector, error) {
	for _, addr := range addrs {
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		path, err := inspectorPath(probe, clientIn(env.Proc, pid, addr), addr)
		cancel()
		if err != nil {
			continue
		}
		return dialInspector(ctx, env, pid, addr, path)
	}
	return nil, fmt.Errorf("no inspector on %d addresses", len(addrs))
}

// inspectorPath asks for the debugger's targets. The URL that it names is
// not followed but for its path.
func inspectorPath(ctx context.Context, client *http.Client, addr netip.AddrPort) (string, error) {
	b, err := fetch(ctx, client, "http://"+addr.String()+"/json/list", 1<<20)
	if err != nil {
		return "", err
	}
	var targets []struct {
		Type string `json:"type"`
		URL  string `json:"webSocketDebuggerUrl"`
	}
	if err := json.Unmarshal(b, &targets); err != nil {
		return "", fmt.Errorf("parse the list of targets: %w", err)
	}
	for _, t := range targets {
		_, rest, ok := strings.Cut(t.URL, "://")
		_, path, slash := strings.Cut(rest, "/")
		if t.Type == "node" && ok && slash {
			return "/" + path, nil
		}
	}
	return "", errors.New("no node among the targets")
}

func dialInspector(ctx context.Context, env Env, pid int, addr netip.AddrPort, path string) (*inspector, error) {
	c, err := env.Proc.DialTCP(ctx, pid, addr)
	if err != nil {
		return nil, err
	}
	ws, err := handshake(ctx, c, addr, path)
	if err != nil {
		_ = c.Close() // nothing was asked yet
		return nil, fmt.Errorf("connect to the inspector: %w", err)
	}
	ws.MaxPayloadBytes = maxMessage
	return &inspector{ws: ws, stop: context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })}, nil
}

func handshake(ctx context.Context, c net.Conn, addr netip.AddrPort, path string) (*websocket.Conn, error) {
	// Node refuses a browser's Origin, and takes one that is its own.
	config, err := websocket.NewConfig("ws://"+addr.String()+path, "http://"+addr.String())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return websocket.NewClient(config, c)
}

// A call's answer or, without an id, an event.
type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// call makes one call and hands the events before its answer to event.
func (i *inspector) call(method string, params any, event func(message) error) (json.RawMessage, error) {
	i.next++
	req := map[string]any{"id": i.next, "method": method, "params": params}
	if err := websocket.JSON.Send(i.ws, req); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	for {
		var m message
		if err := websocket.JSON.Receive(i.ws, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
		switch {
		case m.ID == i.next && m.Error != nil:
			return nil, fmt.Errorf("%s: %s", method, printable(m.Error.Message, 200))
		case m.ID == i.next:
			return m.Result, nil
		case m.ID == 0 && event != nil:
			if err := event(m); err != nil {
				return nil, fmt.Errorf("%s: %w", method, err)
			}
		}
	}
}

// evaluate runs an expression that gives a string.
func (i *inspector) evaluate(expression string) (string, error) {
	b, err := i.call("Runtime.evaluate", map[string]any{
		"expression": expression, "includeCommandLineAPI": true, "returnByValue": true,
	}, nil)
	if err != nil {
		return "", err
	}
	var r struct {
		Result struct {
			Value string `json:"value"`
		} `json:"result"`
		Exception *struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return "", fmt.Errorf("parse the result: %w", err)
	}
	if r.Exception != nil {
		return "", fmt.Errorf("the program throws %s", printable(r.Exception.Text, 200))
	}
	return r.Result.Value, nil
}

// closeInspector makes Node close its inspector once we are gone, since it
// waits for its clients. The debugger lends `require` for the evaluation only:
// looked up in the callback, it would be an uncaught error that ends a program
// which has none of its own.
const closeInspector = `(inspector => {
	setTimeout(() => { try { inspector.close() } catch {} }, 10).unref();
	return '';
})(require('inspector'))`

// close ends the connection, and the inspector with it if we opened it: it
// lets anybody in the container run code.
func (i *inspector) close() {
	if i.ours {
		_, _ = i.evaluate(closeInspector) // best effort: it may be too busy
	}
	i.stop()
	_ = i.ws.Close() // everything was read
}
