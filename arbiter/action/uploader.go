package action

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// An Uploader carries out upload orders that were left over: by an earlier
// daemon, or by a first try that failed.
type Uploader struct {
	Cases   string // the directory of all cases
	Targets map[string]UploadTarget
	Log     hclog.Logger
	Every   time.Duration // between tries; 0 is a minute
}

// Run works until ctx is done. It must be started before the first case is
// opened: what it finds then is an earlier daemon's.
func (u Uploader) Run(ctx context.Context) {
	if u.Every == 0 {
		u.Every = time.Minute
	}
	earlier := u.orders()
	tick := time.NewTicker(u.Every)
	defer tick.Stop()
	for {
		for _, name := range u.orders() {
			order, err := readOrder(name)
			if err == nil && !order.Ready && !slices.Contains(earlier, name) {
				continue // its case is open
			}
			n := 0
			if err == nil {
				n, err = carryOut(ctx, name, u.Targets)
			}
			if err != nil {
				u.Log.Warn("artifacts not uploaded, trying again", "order", name, "error", err)
			} else {
				u.Log.Info("artifacts uploaded", "case", order.Case, "count", n)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (u Uploader) orders() []string {
	names, _ := filepath.Glob(filepath.Join(u.Cases, "*", uploadPrefix+"*.json")) // the pattern is good
	return names
}

// carryOut uploads what an order asks for and removes it. An order of which
// something failed remembers what is done.
func carryOut(ctx context.Context, name string, targets map[string]UploadTarget) (uploaded int, err error) {
	order, err := readOrder(name)
	if err != nil {
		return 0, err
	}
	target, ok := targets[order.To]
	if !ok {
		return 0, fmt.Errorf("arbiter.toml has no [upload.%s]", order.To)
	}
	client, err := target.client()
	if err != nil {
		return 0, err
	}
	files, err := order.files(filepath.Dir(name))
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, file := range files {
		if err := put(ctx, client, target.Bucket, order.key(filepath.Base(file)), file); err != nil {
			errs = append(errs, err)
			continue
		}
		uploaded++
		order.Done = append(order.Done, filepath.Base(file))
		errs = append(errs, order.save(name))
	}
	if err := errors.Join(errs...); err != nil {
		return uploaded, err
	}
	if err := os.Remove(name); err != nil {
		return uploaded, fmt.Errorf("remove upload order: %w", err)
	}
	return uploaded, nil
}

// files lists what is still to be uploaded: artifacts, then the record.
func (o uploadOrder) files(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "artifacts"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	var files []string
	for _, e := range entries {
		if e.Type().IsRegular() && o.wants(e.Name()) && !slices.Contains(o.Done, e.Name()) {
			files = append(files, filepath.Join(dir, "artifacts", e.Name()))
		}
	}
	record := filepath.Join(dir, "case.json")
	if _, err := os.Stat(record); err == nil && !slices.Contains(o.Done, "case.json") {
		files = append(files, record)
	}
	return files, nil
}

func put(ctx context.Context, client *minio.Client, bucket, key, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("upload %s: %w", key, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("upload %s: %w", key, err)
	}
	// Parts are read from the file as they are sent: memory does not grow with
	// the file.
	_, err = client.PutObject(ctx, bucket, key, f, info.Size(), minio.PutObjectOptions{
		ContentType: "application/octet-stream", NumThreads: 2,
	})
	if err != nil {
		return fmt.Errorf("upload %s to %s: %w", key, bucket, err)
	}
	return nil
}

// client speaks to the store. It does not connect yet.
func (t UploadTarget) client() (*minio.Client, error) {
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("endpoint %q: want https://host[:port]", t.Endpoint)
	}
	if _, err := os.Stat(t.CredentialsFile); err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewFileAWSCredentials(t.CredentialsFile, ""),
		Secure: u.Scheme == "https",
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", t.Endpoint, err)
	}
	return client, nil
}
