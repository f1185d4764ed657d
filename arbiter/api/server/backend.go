// Package server answers the API on the unix socket: handlers and peer
// credentials. What it tells and orders comes from a Backend, the engine.
package server

import (
	"context"
	"errors"

	"github.com/arbiterd/arbiter/arbiter/api"
)

// Errors of a Backend that are not the daemon's fault; the text is for the operator.
var (
	ErrNotFound = errors.New("not found")       // 404
	ErrConflict = errors.New("not now")         // 409
	ErrInvalid  = errors.New("invalid request") // 400
)

// Backend is what the engine does for the API.
type Backend interface {
	// Holds lists the held cases, longest held first.
	Holds() []api.Hold
	// Changed is closed at the next change of what Holds returns.
	Changed() <-chan struct{}
	Guards() []api.Guard
	Status() api.Status
	// ResolveCase finds the one open case that an id, or a unique part of it, names.
	Resume(ctx context.Context, caseID string, r api.ResumeRequest, operator string) (api.Done, error)
	Kill(ctx context.Context, caseID, operator string) (api.Done, error)
	Extend(ctx context.Context, caseID string, r api.ExtendRequest, operator string) (api.Done, error)
	Pause(ctx context.Context, r api.PauseRequest, operator string) (api.Done, error)
	Disarm(ctx context.Context, r api.DisarmRequest, operator string) (api.Done, error)
	Reload(ctx context.Context, operator string) (api.Done, error)
	// Explain decides for a target: the text that `explain` prints.
	Explain(ctx context.Context, target string) (string, error)
}
