// Package containerd is the source of the containers that containerd runs:
// Kubernetes pods' through its CRI plugin, and plain ones of any namespace.
//
// It speaks containerd's gRPC API by its generated stubs rather than through
// the full client: listing containers and following their events is all it
// takes, and the client would bring images, snapshots and their dependencies
// into the daemon's memory. Tasks are not listed either: for every container
// that makes a shim run runc, which spins while a freezer is half way. A
// container is taken to run while its memory cgroup exists.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/arbiterd/arbiter/cri"
)

// DefaultAddress is where containerd listens if nobody says otherwise.
const DefaultAddress = "/run/containerd/containerd.sock"

// Kubernetes is the namespace in which the CRI plugin keeps its containers.
const Kubernetes = "k8s.io"

// Config says which containerd to follow. Zero fields have defaults.
type Config struct {
	Address    string       // its gRPC socket; DefaultAddress
	Namespaces []string     // whose containers are reported; Kubernetes
	MemoryRoot string       // the mount of the memory hierarchy; required
	ProcRoot   string       // "/proc"
	ScratchDir string       // for the FIFOs of ExecIn; the system's temporary directory
	Log        hclog.Logger // of containers that cannot be understood; none
}

// A Source follows one containerd.
type Source struct {
	cfg        Config
	conn       *grpc.ClientConn
	containers containersapi.ContainersClient
	events     eventsapi.EventsClient
	tasks      tasksapi.TasksClient

	mu    sync.Mutex
	known map[key]cri.Container // what was reported and still exists
	pods  map[key]cri.Pod       // by the sandbox's id, of known containers
}

// A key names a container: ids are unique in a namespace only.
type key struct{ namespace, id string }

// New makes a source. It does not connect yet.
func New(cfg Config) (*Source, error) {
	if cfg.MemoryRoot == "" {
		return nil, errors.New("containerd source: no memory hierarchy")
	}
	if cfg.Address == "" {
		cfg.Address = DefaultAddress
	}
	if len(cfg.Namespaces) == 0 {
		cfg.Namespaces = []string{Kubernetes}
	}
	if cfg.ProcRoot == "" {
		cfg.ProcRoot = "/proc"
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	conn, err := grpc.NewClient("unix:"+cfg.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: retryMax},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20))) // containerd's own maximum
	if err != nil {
		return nil, fmt.Errorf("containerd %s: %w", cfg.Address, err)
	}
	return &Source{
		cfg:        cfg,
		conn:       conn,
		containers: containersapi.NewContainersClient(conn),
		events:     eventsapi.NewEventsClient(conn),
		tasks:      tasksapi.NewTasksClient(conn),
		known:      map[key]cri.Container{},
		pods:       map[key]cri.Pod{},
	}, nil
}

// Name is "containerd".
func (*Source) Name() string { return "containerd" }

// Close ends the connection. Call it after Run and the last of the others.
func (s *Source) Close() error { return s.conn.Close() }

const (
	retryMin = 100 * time.Millisecond
	retryMax = time.Second
	// settle is when a fresh subscription is followed by a second listing: a
	// server starts to record events at some moment after it was asked to, and
	// does not say when.
	settle = time.Second
)

// Run reports containers until ctx is done, which is no error. containerd may
// start later than it, and come and go: then everything is listed anew, and
// what disappeared meanwhile is taken back.
func (s *Source) Run(ctx context.Context, emit func(cri.Event), health func(error)) error {
	pause := retryMin
	for {
		err := s.follow(ctx, emit, func() {
			pause = retryMin
			health(nil)
		})
		if ctx.Err() != nil {
			return nil
		}
		health(fmt.Errorf("containerd %s: %w", s.cfg.Address, err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
		s.conn.ResetConnectBackoff()
	}
}

// follow subscribes, lists and then reports events until the connection ends.
func (s *Source) follow(ctx context.Context, emit func(cri.Event), up func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub, err := s.subscribe(ctx)
	if err != nil {
		return err
	}
	if err := s.list(ctx, emit); err != nil {
		return err
	}
	up()
	again := time.NewTimer(settle)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			err = s.list(ctx, emit)
		case ev := <-sub.events:
			err = s.handle(ctx, ev, emit)
		case err = <-sub.ended:
		}
		if err != nil {
			return err
		}
	}
}

// list reports every container of the configured namespaces that has a memory
// cgroup, and takes back those that have none any more.
func (s *Source) list(ctx context.Context, emit func(cri.Event)) error {
	var records []record
	for _, ns := range s.cfg.Namespaces {
		rs, err := s.listNamespace(ctx, ns)
		if err != nil {
			return fmt.Errorf("list containers of %s: %w", ns, err)
		}
		records = append(records, rs...)
	}
	s.keepPods(records)
	seen := map[key]bool{}
	for _, r := range records {
		if c, ok := s.identify(ctx, r, 0); ok {
			seen[r.key()] = true
			s.report(r.key(), c, cri.Added, emit)
		}
	}
	for _, k := range s.knownKeys() {
		if !seen[k] {
			s.remove(k, emit)
		}
	}
	emit(cri.Event{Kind: cri.Synced})
	return nil
}

func (s *Source) listNamespace(ctx context.Context, ns string) ([]record, error) {
	ctx, cancel := context.WithTimeout(inNamespace(ctx, ns), 30*time.Second)
	defer cancel()
	stream, err := s.containers.ListStream(ctx, &containersapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	var records []record
	for {
		msg, err := stream.Recv()
		if isEnd(err) {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		records = append(records, record{ns, msg.GetContainer()})
	}
}

// report tells of a container. A listing repeats what is known with what has
// changed since; the pid is known from events alone and kept.
func (s *Source) report(k key, c cri.Container, kind cri.EventKind, emit func(cri.Event)) {
	s.mu.Lock()
	old, repeated := s.known[k]
	if c.Pid == 0 && old.Cgroup == c.Cgroup {
		c.Pid = old.Pid
	}
	s.known[k] = c
	s.mu.Unlock()
	if !repeated {
		kind = cri.Added
	}
	emit(cri.Event{Kind: kind, Container: c})
}

func (s *Source) remove(k key, emit func(cri.Event)) {
	s.mu.Lock()
	c, ok := s.known[k]
	delete(s.known, k)
	delete(s.pods, k)
	s.mu.Unlock()
	if ok {
		emit(cri.Event{Kind: cri.Removed, Container: c})
	}
}

func (s *Source) knownKeys() []key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]key, 0, len(s.known))
	for k := range s.known {
		keys = append(keys, k)
	}
	return keys
}

// namespaceOf finds the containerd namespace of a container, whichever source
// reported it. NRI speaks for the CRI plugin, whose namespace is Kubernetes.
func (s *Source) namespaceOf(c cri.Container) (string, error) {
	if c.ID == "" {
		return "", fmt.Errorf("container %s: no id that containerd would know", c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ns := range s.cfg.Namespaces {
		if _, ok := s.known[key{ns, c.ID}]; ok {
			return ns, nil
		}
	}
	return Kubernetes, nil
}

// inNamespace names the namespace as containerd's API expects it.
func inNamespace(ctx context.Context, ns string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", ns)
}

// exists tells whether the hierarchy has this cgroup. Its root is no
// container's.
func (s *Source) exists(rel string) bool {
	return rel != "" && rel != "/" && isDir(path.Join(s.cfg.MemoryRoot, rel))
}
