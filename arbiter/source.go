package arbiter

import (
	"context"

	"github.com/arbiterd/arbiter/cri"
)

// A Source reports containers: containerd, NRI, or plain cgroups.
type Source interface {
	// Name is the source's name in status and metrics.
	Name() string
	// Run reports containers until ctx is done. It starts before its peer and
	// survives its restarts; it returns early only for errors of
	// configuration. health(nil) says that the source answers, health(err)
	// that it does not and why.
	Run(ctx context.Context, emit func(cri.Event), health func(error)) error
}

// An OOMAnnouncer tells a container runtime that a container was killed for
// its memory, so that every tool above shows the reason that it expects.
type OOMAnnouncer interface {
	AnnounceOOM(ctx context.Context, c cri.Container) error
}

// A ContainerExecer runs a command inside a container.
type ContainerExecer interface {
	ExecIn(ctx context.Context, c cri.Container, cmd cri.Command) (output []byte, exit int, err error)
}
