package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/arbiterd/arbiter/policy"
)

// Upload copies artifacts to S3-compatible storage, once the verdict was
// carried out: nothing waits for a network while a container stands still.
// What is still to be done is written down in the case's directory, so that a
// failed upload is tried again, also by a later daemon (see Uploader).
type Upload struct{ policy.UploadOptions }

var _ Action = Upload{}

func newUpload(o policy.UploadOptions) Upload { return Upload{o} }

// Run writes down what is to be uploaded.
func (a Upload) Run(_ context.Context, env Env) (Result, error) {
	target, ok := env.Uploads[a.To]
	if !ok {
		return Result{}, fmt.Errorf("upload: arbiter.toml has no [upload.%s]", a.To)
	}
	for _, glob := range a.Artifacts {
		if _, err := path.Match(glob, ""); err != nil {
			return Result{}, fmt.Errorf("upload: artifacts %q: %w", glob, err)
		}
	}
	order := uploadOrder{Case: env.Case, To: a.To, Prefix: a.Prefix, Artifacts: a.Artifacts}
	file := uploadPrefix + fileName(env.Step.Name) + ".json"
	shelf := shelfOf(env)
	if shelf == nil {
		return Result{}, fmt.Errorf("upload: %w", errNoShelf)
	}
	name := filepath.Join(shelf.Dir(), file)
	if err := order.save(name); err != nil {
		return Result{}, fmt.Errorf("upload: %w", err)
	}
	return Result{
		Summary: fmt.Sprintf("to be uploaded to %s after the verdict", a.To),
		Details: map[string]string{"destination": target.Endpoint + "/" + target.Bucket + "/" + order.key("")},
		After:   []Work{func(ctx context.Context) (string, error) { return uploadNow(ctx, env, a.To, name) }},
	}, nil
}

// uploadNow tries once. If it fails, the order is left to the Uploader.
func uploadNow(ctx context.Context, env Env, to, name string) (done string, err error) {
	n, err := carryOut(ctx, name, env.Uploads)
	if err == nil {
		env.Log.Info("artifacts uploaded", "case", env.Case, "count", n)
		return fmt.Sprintf("%d artifacts uploaded to %s", n, to), nil
	}
	order, rerr := readOrder(name)
	if rerr == nil {
		order.Ready = true
		rerr = order.save(name)
	}
	return "", errors.Join(fmt.Errorf("upload artifacts to %s, to be tried again: %w", to, err), rerr)
}

// uploadPrefix begins the names of orders in a case's directory.
const uploadPrefix = "upload-"

// An uploadOrder is a step's upload that is not finished.
type uploadOrder struct {
	Case      string   `json:"case"`
	To        string   `json:"to"`
	Prefix    string   `json:"prefix,omitempty"`
	Artifacts []string `json:"artifacts,omitempty"` // globs; none: all
	Done      []string `json:"done,omitempty"`      // artifacts that are there
	// Ready: the case is closed and a first try failed.
	Ready bool `json:"ready,omitempty"`
}

// key is the object's name in the bucket.
func (o uploadOrder) key(name string) string {
	return strings.TrimLeft(path.Join("/", o.Prefix, o.Case, name), "/")
}

// wants reports whether an artifact is to be uploaded. A glob for an artifact
// is also one for its compressed form.
func (o uploadOrder) wants(name string) bool {
	if strings.HasSuffix(name, ".partial") {
		return false
	}
	if len(o.Artifacts) == 0 {
		return true
	}
	for _, glob := range o.Artifacts {
		for _, n := range []string{name, strings.TrimSuffix(name, compressedSuffix)} {
			if ok, _ := path.Match(glob, n); ok {
				return true
			}
		}
	}
	return false
}

func readOrder(name string) (uploadOrder, error) {
	var o uploadOrder
	b, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		return uploadOrder{}, fmt.Errorf("read upload order %s: %w", name, err)
	}
	return o, nil
}

// save replaces the order durably.
func (o uploadOrder) save(name string) error {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("write upload order: %w", err)
	}
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write upload order: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(name+".tmp", name)
	}
	if err != nil {
		_ = os.Remove(name + ".tmp")
		return fmt.Errorf("write upload order: %w", err)
	}
	return nil
}
