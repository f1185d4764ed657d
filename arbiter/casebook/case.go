package casebook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

const (
	recordFile   = "case.json"
	timelineFile = "timeline.jsonl"
	artifactsDir = "artifacts"
	reportFile   = "report.html"

	// pendingMax bounds the timeline that waits in memory for a full disk.
	pendingMax = 1000
)

// A Case is one case that is being written. Its methods may be called from any
// goroutine.
type Case struct {
	book *Book
	id   string

	disk     sync.Mutex // serializes Save, Log and Close; held across fsync
	root     *os.Root   // nil until the directory could be made
	timeline *os.File
	torn     bool // the timeline's last line is cut short
	pending  []byte
	waiting  int // lines in pending
	closed   bool
	unsaved  bool // the last record is only in memory

	mu     sync.Mutex // guards what readers want at once
	last   []byte     // the record as last given to Save
	files  []*File    // in order of creation
	stored []Artifact // found on disk when an interrupted case was opened
	used   int64      // bytes of disk of its artifacts
}

// ID is the case's id.
func (c *Case) ID() string { return c.id }

// Dir is the case's directory.
func (c *Case) Dir() string { return filepath.Join(c.book.dir, c.id) }

// Save replaces case.json. r is not kept; its artifacts are those of List.
func (c *Case) Save(r *Record) error {
	if r.ID != c.id {
		return fmt.Errorf("save case %s: the record is of case %q", c.id, r.ID)
	}
	rec := *r
	rec.Artifacts = c.List()
	data, err := marshal(&rec)
	if err != nil {
		return fmt.Errorf("save case %s: %w", c.id, err)
	}
	c.mu.Lock()
	c.last = data
	c.mu.Unlock()

	c.disk.Lock()
	defer c.disk.Unlock()
	c.unsaved = true
	if err := c.store(); err != nil {
		return fmt.Errorf("save case %s: %w", c.id, err)
	}
	return nil
}

// store writes what is only in memory. c.disk is held.
func (c *Case) store() error {
	if err := c.ready(); err != nil {
		return err
	}
	if c.unsaved {
		c.mu.Lock()
		data := c.last
		c.mu.Unlock()
		if err := replace(c.root, recordFile, data); err != nil {
			return err
		}
		c.unsaved = false
	}
	return c.flush()
}

// marshal writes a record as case.json has it: lists without members are [].
func marshal(r *Record) ([]byte, error) {
	rec := *r
	rec.Plan, rec.Steps, rec.Artifacts = list(rec.Plan), list(rec.Steps), list(rec.Artifacts)
	data, err := json.MarshalIndent(&rec, "", "  ")
	return append(data, '\n'), err
}

// Log appends a line to the timeline; sync makes it durable before Log
// returns. A line that cannot be written now is kept and written later.
func (c *Case) Log(e Entry, sync bool) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("timeline of case %s: %w", c.id, err)
	}
	c.disk.Lock()
	defer c.disk.Unlock()
	if c.waiting < pendingMax {
		c.pending = append(append(c.pending, line...), '\n')
		c.waiting++
	}
	if err := c.ready(); err != nil {
		return fmt.Errorf("timeline of case %s: %w", c.id, err)
	}
	if err := c.flush(); err != nil {
		return fmt.Errorf("timeline of case %s: %w", c.id, err)
	}
	if !sync {
		return nil
	}
	if err := c.timeline.Sync(); err != nil {
		return fmt.Errorf("timeline of case %s: %w", c.id, err)
	}
	return nil
}

// flush appends the waiting lines. A full disk may cut the last one short: it
// is then written again on a line of its own.
func (c *Case) flush() error {
	if len(c.pending) == 0 {
		return nil
	}
	out := c.pending
	if c.torn {
		out = append([]byte{'\n'}, out...)
	}
	n, err := c.timeline.Write(out)
	if err != nil {
		c.torn = c.torn || n > 0
		return err
	}
	c.pending, c.waiting, c.torn = nil, 0, false
	return nil
}

// waitingEntries is what of the timeline is only in memory. While the disk is
// busy it tells nothing rather than wait.
func (c *Case) waitingEntries() []Entry {
	if !c.disk.TryLock() {
		return nil
	}
	defer c.disk.Unlock()
	entries, _, _ := ParseTimeline(bytes.NewReader(c.pending)) // we wrote it: it parses
	return entries
}

// ready makes the case's directory, once there is room for it.
func (c *Case) ready() error {
	if c.closed {
		return os.ErrClosed
	}
	if c.timeline != nil {
		return nil
	}
	if err := c.book.attach(); err != nil {
		return err
	}
	c.book.mu.Lock()
	book := c.book.root
	c.book.mu.Unlock()
	if book == nil {
		return os.ErrClosed
	}
	for _, dir := range []string{c.id, filepath.Join(c.id, artifactsDir)} {
		if err := book.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := syncDir(book, "."); err != nil {
		return err
	}
	root, err := book.OpenRoot(c.id)
	if err != nil {
		return err
	}
	c.timeline, err = root.OpenFile(timelineFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		root.Close()
		return err
	}
	c.root = root
	return nil
}

// Record is the record as last saved, with the artifacts as they are now.
func (c *Case) Record() (*Record, error) {
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if last == nil {
		return nil, fmt.Errorf("case %s has no record yet", c.id)
	}
	r, err := parseRecord(last, c.id)
	if err != nil {
		return nil, err
	}
	r.Artifacts = c.List()
	return r, nil
}

// List tells the artifacts for the record: those that are finished and those
// that are, or stayed, partial, in order of creation.
func (c *Case) List() []Artifact {
	c.mu.Lock()
	list, files := slices.Clone(c.stored), slices.Clone(c.files)
	c.mu.Unlock()
	for _, f := range files {
		list = append(list, f.record())
	}
	return list
}

// Close lets go of the case: it no longer counts as open. What the disk has
// not taken stays in memory, and the book writes it once there is room: the
// error says so.
func (c *Case) Close() error {
	c.disk.Lock()
	defer c.disk.Unlock()
	if c.closed {
		return nil
	}
	if c.unsaved || len(c.pending) > 0 {
		if err := c.store(); err != nil && c.book.park(c) {
			return fmt.Errorf("close case %s: it is kept in memory: %w", c.id, err)
		}
	}
	return c.release()
}

// release closes the case's files. c.disk is held.
func (c *Case) release() error {
	c.closed = true
	c.book.forget(c.id)
	if c.timeline == nil {
		return nil
	}
	return errors.Join(c.timeline.Close(), c.root.Close())
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
