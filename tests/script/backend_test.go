package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/api/server"
)

// A backend plays the engine: it tells what a scenario file says, and writes
// each order that reaches it into a file.
type backend struct {
	orders string // path
	socket string // of the server that it plays for

	mu      sync.Mutex
	scene   scene
	changed chan struct{}
}

// A scene is what the engine knows. Fail maps an order ("kill") to how it
// fails: "not found: ...", "not now: ...", "invalid: ..." or anything else.
type scene struct {
	Holds   []api.Hold        `json:"holds"`
	Guards  []api.Guard       `json:"guards"`
	Status  api.Status        `json:"status"`
	Explain map[string]string `json:"explain"`
	Fail    map[string]string `json:"fail"`
}

var _ server.Backend = (*backend)(nil)

// parseScene reads a scenario. "@-12s" is 12 seconds ago, "@41s" in 41 seconds.
func parseScene(data string, now time.Time) (scene, error) {
	var s scene
	for {
		before, rest, found := strings.Cut(data, `"@`)
		if !found {
			return s, json.Unmarshal([]byte(data), &s)
		}
		offset, after, _ := strings.Cut(rest, `"`)
		d, err := time.ParseDuration(offset)
		if err != nil {
			return s, fmt.Errorf("@%s: %w", offset, err)
		}
		data = before + `"` + now.Add(d).Format(time.RFC3339Nano) + `"` + after
	}
}

func (b *backend) set(s scene) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scene = s
	if b.changed != nil {
		close(b.changed)
	}
	b.changed = make(chan struct{})
}

func (b *backend) now() scene {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.scene
}

func (b *backend) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *backend) Holds() []api.Hold   { return b.now().Holds }
func (b *backend) Guards() []api.Guard { return b.now().Guards }
func (b *backend) Status() api.Status  { return b.now().Status }

// order writes down an order, or fails as the scene says.
func (b *backend) order(name, line, message string) (api.Done, error) {
	if err := failure(b.now().Fail[name]); err != nil {
		return api.Done{}, err
	}
	f, err := os.OpenFile(b.orders, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return api.Done{}, err
	}
	_, err = fmt.Fprintln(f, strings.TrimSpace(name+" "+line))
	return api.Done{Message: message}, errors.Join(err, f.Close())
}

func failure(how string) error {
	kinds := map[string]error{"not found": server.ErrNotFound, "not now": server.ErrConflict, "invalid": server.ErrInvalid}
	kind, text, _ := strings.Cut(how, ": ")
	switch {
	case how == "":
		return nil
	case kinds[kind] != nil:
		return fmt.Errorf("%w: %s", kinds[kind], text)
	}
	return errors.New(how)
}

func (b *backend) Resume(_ context.Context, id string, r api.ResumeRequest, op string) (api.Done, error) {
	return b.order("resume", fmt.Sprintf("%s raise=%q by %s", id, r.Raise, op), "case "+id+" goes on")
}

func (b *backend) Kill(_ context.Context, id, op string) (api.Done, error) {
	return b.order("kill", id+" by "+op, "case "+id+": killed")
}

func (b *backend) Extend(_ context.Context, id string, r api.ExtendRequest, op string) (api.Done, error) {
	return b.order("extend", fmt.Sprintf("%s by=%s by %s", id, r.By, op), "case "+id+" is held for longer")
}

func (b *backend) Pause(_ context.Context, r api.PauseRequest, op string) (api.Done, error) {
	return b.order("pause", fmt.Sprintf("%s rule=%q by %s", r.Target, r.Rule, op), "case 20261121T061502-0bad opened")
}

func (b *backend) Disarm(_ context.Context, r api.DisarmRequest, op string) (api.Done, error) {
	return b.order("disarm", fmt.Sprintf("%q all=%v by %s", r.Target, r.All, op), "disarmed")
}

func (b *backend) Reload(_ context.Context, op string) (api.Done, error) {
	return b.order("reload", "by "+op, "12 rules of 3 files are in force")
}

func (b *backend) Explain(_ context.Context, target string) (string, error) {
	text, ok := b.now().Explain[target]
	if !ok {
		return "", fmt.Errorf("%w: no container %q", server.ErrNotFound, target)
	}
	return text, nil
}
