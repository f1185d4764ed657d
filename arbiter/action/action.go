// Package action holds what a policy's steps can do: one file per action, and
// the table that makes them from policies.
package action

import (
	"context"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/arbiter/cgroup"
	"github.com/arbiterd/arbiter/arbiter/proc"
	"github.com/arbiterd/arbiter/cri"
	"github.com/arbiterd/arbiter/policy"
)

// An Action is one kind of step with its options.
type Action interface {
	// Needs is the state in which the container must be when Run is called.
	Needs() policy.Needs
	// Run does the work. It returns promptly when ctx is done; the error then
	// wraps ctx.Err(). What it learned so far is in Result all the same.
	Run(ctx context.Context, env Env) (Result, error)
}

// Artifacts is where an action puts the files that it produces.
type Artifacts interface {
	// Create opens a new artifact of the case. It is written as NAME.partial
	// and gets its name on Close; Abort leaves the partial file and says so.
	Create(name string) (Artifact, error)
}

// An Artifact is a file being written. Write fails once the case's disk
// budget is used up.
type Artifact interface {
	io.Writer
	// File is the open file, for writers that need seeks and holes.
	File() FileWriter
	Close() error
	Abort(why error)
}

// FileWriter is what a sparse writer needs of *os.File.
type FileWriter interface {
	io.Writer
	io.WriterAt
	io.Seeker
	Truncate(size int64) error
	Fd() uintptr
	Name() string
}

// Env is everything an action may use.
type Env struct {
	Case      string        // the case's id
	CaseJSON  func() []byte // the case as `exec` and `webhook` hand it on
	Facts     policy.Facts
	Rule      *policy.Rule
	Step      policy.Step
	Cgroup    cgroup.Cgroup
	Proc      proc.FS
	Artifacts Artifacts
	Log       hclog.Logger
	// Progress tells how far a long action is, in bytes; total 0 is unknown.
	Progress func(done, total uint64)
	// Borrow asks for more borrowed room in the middle of the step, in bytes
	// above the original limit, within the budgets.
	Borrow func(ctx context.Context, bytes uint64) error
	// ExecIn runs a command inside the container, through its runtime; nil
	// where no runtime can (plain cgroups).
	ExecIn func(ctx context.Context, cmd cri.Command) (output []byte, exit int, err error)
	// Uploads are the stores that arbiter.toml names.
	Uploads map[string]UploadTarget
	// Shelf is where the case's artifacts lie, for work after the verdict. It
	// gives nil as long as the case has no directory.
	Shelf func() Shelf
}

// A Shelf is a case's directory. *casebook.Case is one.
type Shelf interface {
	Dir() string
	List() []casebook.Artifact
	Open(name string) (*os.File, error)
	// Remove removes a finished artifact, once another one replaces it.
	Remove(name string) error
}

var _ Shelf = (*casebook.Case)(nil)

// UploadTarget is one [upload.NAME] of arbiter.toml: an S3-compatible store.
type UploadTarget struct {
	Endpoint        string // https://host[:port]
	Bucket          string
	CredentialsFile string // an AWS credentials file
}

// Result is what an action learned, whether it failed or not.
type Result struct {
	Summary string            // one line for people
	Details map[string]string // figures, for the case's record
	// After is work that can wait until the verdict was carried out:
	// compression, uploads. It runs in order, once the case is closed.
	After []Work
}

// Work is done once the case is closed. What was done is a line for the case's
// timeline, or nothing worth one.
type Work = func(ctx context.Context) (done string, err error)
