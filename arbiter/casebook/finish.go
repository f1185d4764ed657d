package casebook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Finish makes the artifacts durable and sums those that were not written in
// order. It reads what may be gigabytes: call it after the verdict. What ctx
// cuts short has no sum in the record, until FinishLeft comes by. It returns
// the list for the record.
func (c *Case) Finish(ctx context.Context) ([]Artifact, error) {
	c.disk.Lock()
	err := c.ready()
	root := c.root
	c.disk.Unlock()
	if err != nil {
		return c.List(), fmt.Errorf("finish artifacts of case %s: %w", c.id, err)
	}
	c.mu.Lock()
	files := slices.Clone(c.files)
	c.mu.Unlock()
	var errs []error
	for _, f := range files {
		errs = append(errs, f.finish(ctx, root))
	}
	errs = append(errs, c.finishStored(ctx, root), syncDir(root, artifactsDir))
	return c.List(), errors.Join(errs...)
}

func (f *File) finish(ctx context.Context, root *os.Root) error {
	f.mu.Lock()
	skip, sha := f.state != done, f.sha
	f.mu.Unlock()
	if skip {
		return nil
	}
	sha, err := seal(ctx, root, f.name, sha)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sha = sha
	if err != nil && ctx.Err() == nil {
		f.reason = err.Error()
	}
	return err
}

// finishStored sums what an earlier daemon named but did not sum.
func (c *Case) finishStored(ctx context.Context, root *os.Root) error {
	c.mu.Lock()
	stored := slices.Clone(c.stored)
	c.mu.Unlock()
	var errs []error
	for i, a := range stored {
		if a.Partial || a.SHA256 != "" {
			continue
		}
		sha, err := seal(ctx, root, a.Name, "")
		stored[i].SHA256 = sha
		if err != nil && ctx.Err() == nil {
			stored[i].Why = err.Error()
		}
		errs = append(errs, err)
	}
	c.mu.Lock()
	c.stored = stored
	c.mu.Unlock()
	return errors.Join(errs...)
}

// seal waits until an artifact is on the disk and sums it if need be.
func seal(ctx context.Context, root *os.Root, name, sha string) (string, error) {
	f, err := root.Open(filepath.Join(artifactsDir, name))
	if err != nil {
		return "", fmt.Errorf("finish artifact %s: %w", name, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("finish artifact %s: %w", name, err)
	}
	if sha != "" {
		return sha, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, ctxReader{ctx, f}); err != nil {
		return "", fmt.Errorf("sum artifact %s: %w", name, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Open opens a finished or partial artifact for reading.
func (c *Case) Open(name string) (*os.File, error) {
	f, _, err := c.book.OpenArtifact(c.id, name)
	return f, err
}

// Remove removes a finished artifact, once another one replaces it (the
// compressed one, say). It first waits until the others are on the disk: a
// power cut must not take both.
func (c *Case) Remove(name string) error {
	c.disk.Lock()
	err := c.ready()
	root := c.root
	c.disk.Unlock()
	if err == nil {
		err = checkName(name)
	}
	if err == nil {
		err = c.sync(root, name)
	}
	if err != nil {
		return fmt.Errorf("remove artifact %q: %w", name, err)
	}
	path := filepath.Join(artifactsDir, name)
	info, err := root.Lstat(path)
	if err == nil {
		err = root.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove artifact %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.used -= blocks(info)
		c.book.budget.add(-blocks(info))
	}
	c.files = slices.DeleteFunc(c.files, func(f *File) bool { return f.is(name) })
	c.stored = slices.DeleteFunc(c.stored, func(a Artifact) bool { return a.Name == name })
	return nil
}

// WriteReport replaces report.html by what f writes, within the budgets.
func (c *Case) WriteReport(f func(io.Writer) error) error {
	var page bytes.Buffer
	if err := f(&page); err != nil {
		return err
	}
	c.mu.Lock()
	err := c.book.budget.take(int64(page.Len()), c.used)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write report of case %s: %w", c.id, err)
	}
	c.disk.Lock()
	defer c.disk.Unlock()
	if err := c.ready(); err != nil {
		return fmt.Errorf("write report of case %s: %w", c.id, err)
	}
	if err := replace(c.root, reportFile, page.Bytes()); err != nil {
		return fmt.Errorf("write report of case %s: %w", c.id, err)
	}
	return nil
}

// sync makes every artifact but one durable.
func (c *Case) sync(root *os.Root, but string) error {
	c.mu.Lock()
	files := slices.Clone(c.files)
	c.mu.Unlock()
	for _, file := range files {
		if file.is(but) || !file.is(file.name) {
			continue
		}
		f, err := root.Open(filepath.Join(artifactsDir, file.name))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(root, artifactsDir)
}

// FinishLeft sums the artifacts of closed cases that an earlier daemon did not
// live to sum. It may take long; it ends with ctx.
func (b *Book) FinishLeft(ctx context.Context) error {
	ids, err := b.ids()
	if err != nil {
		return fmt.Errorf("finish artifacts: %w", err)
	}
	var errs []error
	for _, id := range ids {
		r, err := b.record(id)
		if err != nil || r.Closed.IsZero() || b.liveCase(id) != nil || !unsummed(r) {
			continue // corrupt ones are told by List
		}
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		c, err := b.reopen(r)
		if err == nil {
			_, err = c.Finish(ctx)
			err = errors.Join(err, c.Save(r))
		}
		errs = append(errs, err, c.Close())
	}
	return errors.Join(errs...)
}

func unsummed(r *Record) bool {
	return slices.ContainsFunc(r.Artifacts, func(a Artifact) bool { return !a.Partial && a.SHA256 == "" && a.Why == "" })
}
