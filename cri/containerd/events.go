package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	eventtypes "github.com/containerd/containerd/api/events"

	"github.com/arbiterd/arbiter/cri"
)

// A subscription is containerd's stream of events, read ahead so that waiting
// for it can be combined with timers.
type subscription struct {
	events chan *types.Envelope
	ended  chan error
}

func (s *Source) subscribe(ctx context.Context) (*subscription, error) {
	var filters []string
	for _, ns := range s.cfg.Namespaces {
		filters = append(filters, fmt.Sprintf("namespace==%q,topic~=%q", ns, "^/(tasks|containers)/"))
	}
	stream, err := s.events.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("subscribe to events: %w", err)
	}
	sub := &subscription{events: make(chan *types.Envelope, 256), ended: make(chan error, 1)}
	go func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				sub.ended <- fmt.Errorf("events: %w", err)
				return
			}
			select {
			case sub.events <- ev:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sub, nil
}

// handle turns one of containerd's events into ours. The cgroup exists from
// the creation of a task on, before its first instruction. Errors of one
// container are no errors of the source, unless the connection is at fault.
func (s *Source) handle(ctx context.Context, env *types.Envelope, emit func(cri.Event)) error {
	ev, err := decode(env)
	if err != nil || ev.topic == "" {
		if err != nil {
			s.cfg.Log.Warn("containerd event not understood", "topic", env.GetTopic(), "error", err)
		}
		return nil
	}
	k := key{env.GetNamespace(), ev.id}
	switch ev.topic {
	case "/tasks/create":
		return s.fetch(ctx, k, ev.pid, cri.Added, emit)
	case "/tasks/start":
		if !s.isKnown(k) {
			return s.fetch(ctx, k, ev.pid, cri.Added, emit)
		}
	case "/containers/update":
		if s.isKnown(k) {
			return s.fetch(ctx, k, 0, cri.Updated, emit)
		}
	default:
		s.remove(k, emit)
	}
	return nil
}

// fetch asks for one container's record and reports it.
func (s *Source) fetch(ctx context.Context, k key, pid int, kind cri.EventKind, emit func(cri.Event)) error {
	r, err := s.get(ctx, k)
	switch {
	case status.Code(err) == codes.NotFound:
		s.remove(k, emit)
		return nil
	case err != nil:
		return fmt.Errorf("get container %s: %w", k.id, err)
	}
	if c, ok := s.identify(ctx, r, pid); ok {
		s.report(k, c, kind, emit)
	}
	return nil
}

func (s *Source) get(ctx context.Context, k key) (record, error) {
	ctx, cancel := context.WithTimeout(inNamespace(ctx, k.namespace), 10*time.Second)
	defer cancel()
	rsp, err := s.containers.Get(ctx, &containersapi.GetContainerRequest{ID: k.id})
	return record{k.namespace, rsp.GetContainer()}, err
}

func (s *Source) isKnown(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.known[k]
	return ok
}

// change is what matters in an event: topic is empty for those that do not.
type change struct {
	topic, id string
	pid       int
}

// decode reads the events of interest. The end of a process that was executed
// inside is none: its id differs from the container's.
func decode(env *types.Envelope) (change, error) {
	topic := env.GetTopic()
	var msg interface {
		proto.Message
		GetContainerID() string
	}
	switch topic {
	case "/tasks/create":
		msg = &eventtypes.TaskCreate{}
	case "/tasks/start":
		msg = &eventtypes.TaskStart{}
	case "/tasks/exit":
		msg = &eventtypes.TaskExit{}
	case "/tasks/delete":
		msg = &eventtypes.TaskDelete{}
	case "/containers/update", "/containers/delete":
		return decodeContainer(env)
	default:
		return change{}, nil
	}
	if err := proto.Unmarshal(env.GetEvent().GetValue(), msg); err != nil {
		return change{}, err
	}
	c := change{topic: topic, id: msg.GetContainerID()}
	if m, ok := msg.(interface{ GetPid() uint32 }); ok && (topic == "/tasks/create" || topic == "/tasks/start") {
		c.pid = int(m.GetPid())
	}
	if m, ok := msg.(interface{ GetID() string }); ok && m.GetID() != "" && m.GetID() != c.id {
		return change{}, nil
	}
	return c, valid(c)
}

func decodeContainer(env *types.Envelope) (change, error) {
	var id string
	if strings.HasSuffix(env.GetTopic(), "/update") {
		var m eventtypes.ContainerUpdate
		if err := proto.Unmarshal(env.GetEvent().GetValue(), &m); err != nil {
			return change{}, err
		}
		id = m.GetID()
	} else {
		var m eventtypes.ContainerDelete
		if err := proto.Unmarshal(env.GetEvent().GetValue(), &m); err != nil {
			return change{}, err
		}
		id = m.GetID()
	}
	c := change{topic: env.GetTopic(), id: id}
	return c, valid(c)
}

func valid(c change) error {
	if c.id == "" {
		return errors.New("no container id")
	}
	return nil
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) }
