package containerd

import (
	"testing"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func envelope(topic string, m proto.Message) *types.Envelope {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &types.Envelope{Namespace: "k8s.io", Topic: topic, Event: &anypb.Any{Value: b}}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		env  *types.Envelope
		want change
	}{
		{"create", envelope("/tasks/create", &eventtypes.TaskCreate{ContainerID: "c", Pid: 5}), change{"/tasks/create", "c", 5}},
		{"start", envelope("/tasks/start", &eventtypes.TaskStart{ContainerID: "c", Pid: 5}), change{"/tasks/start", "c", 5}},
		{"exit", envelope("/tasks/exit", &eventtypes.TaskExit{ContainerID: "c", ID: "c", Pid: 5}), change{"/tasks/exit", "c", 0}},
		{"exit of an exec", envelope("/tasks/exit", &eventtypes.TaskExit{ContainerID: "c", ID: "probe", Pid: 6}), change{}},
		{"delete", envelope("/tasks/delete", &eventtypes.TaskDelete{ContainerID: "c"}), change{"/tasks/delete", "c", 0}},
		{"delete of an exec", envelope("/tasks/delete", &eventtypes.TaskDelete{ContainerID: "c", ID: "probe"}), change{}},
		{"update", envelope("/containers/update", &eventtypes.ContainerUpdate{ID: "c"}), change{"/containers/update", "c", 0}},
		{"removal", envelope("/containers/delete", &eventtypes.ContainerDelete{ID: "c"}), change{"/containers/delete", "c", 0}},
		{"another", envelope("/tasks/paused", &eventtypes.TaskPaused{ContainerID: "c"}), change{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, err := decode(tt.env); got != tt.want || err != nil {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("/tasks/create", []byte("\x0a\x01c\x30\x05"))
	f.Add("/containers/update", []byte("\x0a\x01c"))
	f.Fuzz(func(t *testing.T, topic string, value []byte) {
		c, err := decode(&types.Envelope{Topic: topic, Event: &anypb.Any{Value: value}})
		if err == nil && c.topic != "" && c.id == "" {
			t.Errorf("a change of nothing: %+v", c)
		}
	})
}
