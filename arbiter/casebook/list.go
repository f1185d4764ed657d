package casebook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/policy"
)

// A Filter picks cases. A zero field picks all.
type Filter struct {
	Rule      string
	Outcome   Outcome
	Trigger   policy.TriggerKind
	Namespace string // glob
	Container string // glob over the container's name, "ns/pod/name", id or cgroup
	Since     time.Time
	Until     time.Time
	Open      bool // only cases that are not closed
	Limit     int  // at most this many, the newest
}

// List reads the cases that the filter picks, newest first. Cases that cannot
// be read are skipped and told in the error, beside the others.
func (b *Book) List(f Filter) ([]*Record, error) {
	b.settle()
	ids, err := b.ids()
	if err != nil {
		return nil, fmt.Errorf("list cases: %w", err)
	}
	list := []*Record{}
	var errs []error
	for _, id := range ids {
		if f.Limit > 0 && len(list) == f.Limit {
			break
		}
		if !f.inTime(id) {
			continue
		}
		r, err := b.record(id)
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if f.picks(r) {
			list = append(list, r)
		}
	}
	return list, errors.Join(errs...)
}

// inTime judges by the id alone, which spares the reading of old cases.
func (f Filter) inTime(id string) bool {
	at, ok := TimeOf(id)
	if !ok {
		return false
	}
	if !f.Since.IsZero() && at.Before(f.Since.Truncate(time.Second)) {
		return false
	}
	return f.Until.IsZero() || !at.After(f.Until)
}

func (f Filter) picks(r *Record) bool {
	c := r.Facts.Container
	switch {
	case f.Rule != "" && f.Rule != r.Rule,
		f.Outcome != "" && f.Outcome != r.Outcome,
		f.Trigger != "" && f.Trigger != r.Facts.Trigger,
		f.Open && !r.Closed.IsZero(),
		f.Namespace != "" && !glob(f.Namespace, c.Pod.Namespace):
		return false
	case f.Container == "":
		return true
	}
	return slices.ContainsFunc([]string{c.Name, c.String(), c.Cgroup, strings.TrimPrefix(c.Cgroup, "/")}, func(s string) bool {
		return glob(f.Container, s)
	}) || c.ID != "" && strings.HasPrefix(c.ID, f.Container)
}

func glob(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return err == nil && ok || pattern == s
}

// Interrupted opens the cases that an earlier daemon left unclosed, oldest
// first, for the engine to close. Call it once, before any Create.
func (b *Book) Interrupted() ([]*Case, error) {
	ids, err := b.ids()
	if err != nil {
		return nil, fmt.Errorf("list cases: %w", err)
	}
	slices.Reverse(ids)
	var cases []*Case
	var errs []error
	for _, id := range ids {
		if b.liveCase(id) != nil || b.isClosed(id) {
			continue
		}
		r, err := b.record(id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c, err := b.reopen(r)
		if err != nil {
			errs = append(errs, err)
		}
		cases = append(cases, c)
	}
	return cases, errors.Join(errs...)
}

// isClosed looks at no more of a record than that: there may be thousands, and
// the daemon guards nothing before it has looked at all of them.
func (b *Book) isClosed(id string) bool {
	root, err := b.caseRoot(id)
	if err != nil {
		return false
	}
	defer root.Close()
	f, err := openRegular(root, recordFile)
	if err != nil {
		return false
	}
	defer f.Close()
	var head struct {
		ID     string    `json:"id"`
		Closed time.Time `json:"closed"`
	}
	err = json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&head)
	return err == nil && head.ID == id && !head.Closed.IsZero()
}

// reopen makes a case of an earlier daemon writable.
func (b *Book) reopen(r *Record) (*Case, error) {
	c := &Case{book: b, id: r.ID}
	stored, used, err := b.stored(r)
	c.stored, c.used = stored, used
	r.Artifacts = stored
	if last, merr := marshal(r); merr == nil {
		c.last = last
	}
	// The earlier daemon may have died in the middle of a line.
	c.torn = true
	b.mu.Lock()
	b.live[r.ID] = c
	b.mu.Unlock()
	return c, err
}

// stored lists the artifacts on disk as the record knows them.
func (b *Book) stored(r *Record) ([]Artifact, int64, error) {
	root, err := b.caseRoot(r.ID)
	if err != nil {
		return r.Artifacts, 0, err
	}
	defer root.Close()
	names, err := dirNames(root, artifactsDir)
	if err != nil {
		return r.Artifacts, 0, fmt.Errorf("case %s: %w", r.ID, err)
	}
	slices.Sort(names)
	var list []Artifact
	for _, name := range names {
		info, err := root.Lstat(filepath.Join(artifactsDir, name))
		if err != nil {
			continue
		}
		a := Artifact{Name: name, Size: info.Size(), Partial: strings.HasSuffix(name, partial)}
		for _, known := range r.Artifacts {
			if strings.TrimSuffix(known.Name, partial) == strings.TrimSuffix(name, partial) {
				a.Step = known.Step
				if known.Name == name {
					a.SHA256, a.Why = known.SHA256, known.Why
				}
			}
		}
		if a.Partial {
			a.Why = "the daemon ended while it was written"
		}
		list = append(list, a)
	}
	used, err := diskUse(root, artifactsDir)
	return list, used, err
}
