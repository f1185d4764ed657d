package containerd

import (
	"context"
	"fmt"

	eventtypes "github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/arbiterd/arbiter/cri"
)

// AnnounceOOM tells containerd that a container ran out of memory, as its shim
// does when the kernel kills. The CRI plugin then gives "OOMKilled" as the
// reason of the container's end, whether it hears of the end before or after.
// A kill by the kernel itself needs no announcement, and a container that only
// its cgroup's path names is none of containerd's.
func (s *Source) AnnounceOOM(ctx context.Context, c cri.Container) error {
	if c.Source == "cgroupfs" {
		return nil
	}
	ns, err := s.namespaceOf(c)
	if err != nil {
		return err
	}
	value, err := proto.Marshal(&eventtypes.TaskOOM{ContainerID: c.ID})
	if err != nil {
		return err
	}
	// The type's bare name: containerd's registry knows no "type.googleapis.com/".
	_, err = s.events.Publish(inNamespace(ctx, ns), &eventsapi.PublishRequest{
		Topic: "/tasks/oom",
		Event: &anypb.Any{TypeUrl: "containerd.events.TaskOOM", Value: value},
	})
	if err != nil {
		return fmt.Errorf("publish /tasks/oom for %s: %w", c, err)
	}
	return nil
}
