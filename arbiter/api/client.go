package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// DefaultSocket is where the daemon listens unless arbiter.toml says otherwise.
const DefaultSocket = "/run/arbiter/arbiter.sock"

const (
	dialTimeout = 2 * time.Second
	// callTimeout covers the slowest order, a kill: the daemon waits until the
	// memory is back.
	callTimeout = 60 * time.Second
	maxAnswer   = 256 << 20
)

// ErrUnreachable says that no daemon answered.
var ErrUnreachable = errors.New("arbiterd is not reachable")

// A StatusError is an answer of the daemon that is not 2xx.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return e.Message }

// A Client speaks to the daemon on one socket.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client. It connects when it is first used.
func New(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Holds lists the held cases, longest held first.
func (c *Client) Holds(ctx context.Context) (holds []Hold, err error) {
	return holds, c.Get(ctx, "/v1/holds", nil, &holds)
}

// WatchHolds calls f with the held cases, now and at each change, until ctx is
// done, f fails or the daemon goes away.
func (c *Client) WatchHolds(ctx context.Context, f func([]Hold) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/holds?watch=1", nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var holds []Hold
		if err := dec.Decode(&holds); err != nil {
			return c.broken(ctx, err)
		}
		if err := f(holds); err != nil {
			return err
		}
	}
}

// Guards lists every matched container.
func (c *Client) Guards(ctx context.Context) (guards []Guard, err error) {
	return guards, c.Get(ctx, "/v1/guards", nil, &guards)
}

// Status is the daemon's own state.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.Get(ctx, "/v1/status", nil, &s)
}

// Explain decides for a target and tells why.
func (c *Client) Explain(ctx context.Context, target string) (string, error) {
	var e Explanation
	err := c.Get(ctx, "/v1/explain", url.Values{"target": {target}}, &e)
	return e.Text, err
}

// Resume, Kill and Extend are an operator's orders about an open case, which
// its id or a unique part of it names.
func (c *Client) Resume(ctx context.Context, id string, r ResumeRequest) (Done, error) {
	return c.post(ctx, "/v1/cases/"+url.PathEscape(id)+"/resume", r)
}

func (c *Client) Kill(ctx context.Context, id string) (Done, error) {
	return c.post(ctx, "/v1/cases/"+url.PathEscape(id)+"/kill", nil)
}

func (c *Client) Extend(ctx context.Context, id string, r ExtendRequest) (Done, error) {
	return c.post(ctx, "/v1/cases/"+url.PathEscape(id)+"/extend", r)
}

// Pause opens a manual case.
func (c *Client) Pause(ctx context.Context, r PauseRequest) (Done, error) {
	return c.post(ctx, "/v1/pause", r)
}

// Disarm lets go and stops guarding until Reload.
func (c *Client) Disarm(ctx context.Context, r DisarmRequest) (Done, error) {
	return c.post(ctx, "/v1/disarm", r)
}

// Reload reads the policies again.
func (c *Client) Reload(ctx context.Context) (Done, error) {
	return c.post(ctx, "/v1/reload", nil)
}

// Artifact opens an artifact of a case from an offset on, and tells its whole
// size. The id is a whole one.
func (c *Client) Artifact(ctx context.Context, id, name string, offset int64) (io.ReadCloser, int64, error) {
	h := http.Header{}
	if offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	path := "/v1/cases/" + url.PathEscape(id) + "/artifacts/" + url.PathEscape(name)
	resp, err := c.do(ctx, http.MethodGet, path, h, nil)
	if err != nil {
		return nil, 0, err
	}
	size := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		size += offset
	}
	return resp.Body, size, nil
}

// Get reads any JSON that the daemon serves. Cases are read with it: their
// type is the casebook's.
func (c *Client) Get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.call(ctx, http.MethodGet, path, nil, into)
}

func (c *Client) post(ctx context.Context, path string, body any) (done Done, err error) {
	return done, c.call(ctx, http.MethodPost, path, body, &done)
}

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	resp, err := c.do(ctx, method, path, nil, data)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// do sends a request; the answer is 2xx.
func (c *Client) do(ctx context.Context, method, path string, h http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://arbiterd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, h)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, statusError(resp)
}

func statusError(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("%s: %w", resp.Status, err)
	}
	var e Error
	if json.Unmarshal(data, &e) != nil || e.Message == "" {
		e.Message = strings.TrimSpace(resp.Status + ": " + string(data))
	}
	return &StatusError{Code: resp.StatusCode, Message: e.Message}
}

// unreachable says in words why no daemon answered.
func (c *Client) unreachable(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s; is it running?", ErrUnreachable, c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens on %s; it has died or was stopped", ErrUnreachable, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: permission denied on %s; be root or a member of its group", ErrUnreachable, c.socket)
	case errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() != nil:
		return fmt.Errorf("%w: %s does not answer", ErrUnreachable, c.socket)
	case cutOff(err):
		return fmt.Errorf("%w: it closed the connection", ErrUnreachable)
	}
	return fmt.Errorf("%w on %s: %w", ErrUnreachable, c.socket, err)
}

// broken says why an answer ended too early.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cutOff(err) {
		return fmt.Errorf("%w: it closed the connection", ErrUnreachable)
	}
	return fmt.Errorf("answer of arbiterd: %w", err)
}

// cutOff reports whether the daemon went away in the middle of a call.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
