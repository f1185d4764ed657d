package containerd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/fifo"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/arbiterd/arbiter/cri"
)

const (
	// maxOutput bounds what a command in a container can make us keep.
	maxOutput = 1 << 20
	// drain is how long output may still come once the command has ended: a
	// process that it left behind can hold the pipe open for ever.
	drain = 2 * time.Second
	// processType is containerd's name for an OCI process as JSON.
	processType = "types.containerd.io/opencontainers/runtime-spec/1/Process"
)

// ExecIn runs a command inside the container, with the user, working
// directory and environment of its main process and cmd's own variables, and gives back the beginning of its
// output (standard output and error as they come) and its exit status. The
// container must run: a runtime refuses to execute in a frozen one. When ctx
// ends first the command is killed.
func (s *Source) ExecIn(ctx context.Context, c cri.Container, cmd cri.Command) (output []byte, exit int, err error) {
	ns, err := s.namespaceOf(c)
	if err != nil {
		return nil, 0, err
	}
	process, err := s.process(ctx, key{ns, c.ID}, cmd)
	if err != nil {
		return nil, 0, fmt.Errorf("exec in %s: %w", c, err)
	}
	x := &execution{tasks: s.tasks, container: c.ID, id: "arbiter-" + rand.Text(), process: process}
	if err := x.openPipes(ctx, s.cfg.ScratchDir); err != nil {
		return nil, 0, fmt.Errorf("exec in %s: %w", c, err)
	}
	defer x.closePipes()
	exit, err = x.run(inNamespace(ctx, ns), cmd.Stdin)
	if err != nil {
		return x.out.bytes(), 0, fmt.Errorf("exec in %s: %w", c, err)
	}
	return x.out.bytes(), exit, nil
}

// process is the main process's specification with another command.
func (s *Source) process(ctx context.Context, k key, cmd cri.Command) ([]byte, error) {
	r, err := s.get(ctx, k)
	if err != nil {
		return nil, err
	}
	var sp struct {
		Process map[string]any `json:"process"`
	}
	if err := json.Unmarshal(r.GetSpec().GetValue(), &sp); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if sp.Process == nil {
		return nil, errors.New("spec: no process")
	}
	sp.Process["args"] = cmd.Argv
	env, _ := sp.Process["env"].([]any)
	for _, v := range cmd.Env {
		env = append(env, v) // of two the later one counts
	}
	sp.Process["env"] = env
	sp.Process["terminal"] = false
	delete(sp.Process, "consoleSize")
	return json.Marshal(sp.Process)
}

// An execution is one additional process of a task.
type execution struct {
	tasks         tasksapi.TasksClient
	container, id string
	process       []byte

	dir            string // of the FIFOs, which the shim opens by name
	in, out1, out2 io.ReadWriteCloser
	out            capped
}

func (x *execution) openPipes(ctx context.Context, scratch string) (err error) {
	if x.dir, err = os.MkdirTemp(scratch, "arbiter-exec-"); err != nil {
		return err
	}
	open := func(name string, flag int) io.ReadWriteCloser {
		if err != nil {
			return nil
		}
		var f io.ReadWriteCloser
		f, err = fifo.OpenFifo(ctx, filepath.Join(x.dir, name), flag|unix.O_CREAT|unix.O_NONBLOCK, 0o600)
		return f
	}
	x.in = open("in", unix.O_WRONLY)
	x.out1 = open("out", unix.O_RDONLY)
	x.out2 = open("err", unix.O_RDONLY)
	if err != nil {
		x.closePipes()
	}
	return err
}

func (x *execution) closePipes() {
	for _, f := range []io.Closer{x.in, x.out1, x.out2} {
		if f != nil {
			f.Close()
		}
	}
	os.RemoveAll(x.dir)
}

func (x *execution) run(ctx context.Context, stdin []byte) (int, error) {
	_, err := x.tasks.Exec(ctx, &tasksapi.ExecProcessRequest{
		ContainerID: x.container,
		ExecID:      x.id,
		Stdin:       filepath.Join(x.dir, "in"),
		Stdout:      filepath.Join(x.dir, "out"),
		Stderr:      filepath.Join(x.dir, "err"),
		Spec:        &anypb.Any{TypeUrl: processType, Value: x.process},
	})
	if err != nil {
		return 0, err
	}
	defer x.delete(ctx)
	if _, err := x.tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: x.container, ExecID: x.id}); err != nil {
		return 0, err
	}
	var copies sync.WaitGroup
	copies.Go(func() { x.out.readFrom(x.out1) })
	copies.Go(func() { x.out.readFrom(x.out2) })
	go x.feed(ctx, stdin)

	end, err := x.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: x.container, ExecID: x.id})
	if err != nil {
		return 0, err
	}
	copied := make(chan struct{})
	go func() {
		copies.Wait()
		close(copied)
	}()
	select {
	case <-copied:
	case <-time.After(drain):
	case <-ctx.Done():
	}
	return int(end.GetExitStatus()), nil
}

// feed writes the standard input and closes it. The shim holds the FIFO open
// too, so that it must be told.
func (x *execution) feed(ctx context.Context, stdin []byte) {
	// A command that does not read its input is no error.
	_, _ = x.in.Write(stdin)
	_ = x.in.Close()
	_, _ = x.tasks.CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: x.container, ExecID: x.id, Stdin: true})
}

// delete ends the process if it still runs and makes containerd forget it. It
// has its own deadline, since it matters most when ctx is over.
func (x *execution) delete(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	del := &tasksapi.DeleteProcessRequest{ContainerID: x.container, ExecID: x.id}
	if _, err := x.tasks.DeleteProcess(ctx, del); err == nil || status.Code(err) == codes.NotFound {
		return
	}
	_, _ = x.tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: x.container, ExecID: x.id, Signal: uint32(unix.SIGKILL)})
	_, _ = x.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: x.container, ExecID: x.id})
	_, _ = x.tasks.DeleteProcess(ctx, del)
}

// capped keeps the beginning of what is written to it and drops the rest.
type capped struct {
	mu sync.Mutex
	b  []byte
}

func (c *capped) readFrom(r io.Reader) {
	// Ends with the process, or when the pipe is closed under it.
	_, _ = io.Copy(c, r)
}

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.b = append(c.b, p[:min(len(p), maxOutput-len(c.b))]...)
	return len(p), nil
}

func (c *capped) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.b...)
}
