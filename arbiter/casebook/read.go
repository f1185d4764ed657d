package casebook

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxRecord   = 8 << 20
	maxTimeline = 64 << 20
	maxLine     = 1 << 20
)

// ErrCorrupt says that a case's files cannot be what Arbiter wrote.
var ErrCorrupt = errors.New("corrupt case")

// parseRecord reads case.json of the case with the given id. Unknown keys are
// ignored: a newer daemon may have written them.
func parseRecord(data []byte, id string) (*Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: %s of %s: %w", ErrCorrupt, recordFile, id, err)
	}
	if r.ID != id {
		return nil, fmt.Errorf("%w: %s of %s says it is case %q", ErrCorrupt, recordFile, id, r.ID)
	}
	return &r, nil
}

// ReadRecord reads a case.json from anywhere, as `arbiterctl get` leaves it.
func ReadRecord(r io.Reader) (*Record, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("%w: more than %s", ErrCorrupt, human(maxRecord))
	}
	var rec Record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, ok := TimeOf(rec.ID); !ok {
		return nil, fmt.Errorf("%w: its id is %q", ErrCorrupt, rec.ID)
	}
	return &rec, nil
}

// ParseTimeline reads timeline.jsonl. Lines that are cut short, by a crash or
// a full disk, are skipped and counted.
func ParseTimeline(r io.Reader) (entries []Entry, skipped int, err error) {
	sc := bufio.NewScanner(io.LimitReader(r, maxTimeline))
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		line := bytes.TrimSpace(sc.Bytes())
		if len(line) == 0 {
			continue
		}
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.At.IsZero() {
			skipped++
			continue
		}
		entries = append(entries, e)
	}
	if err := sc.Err(); err != nil {
		return entries, skipped, fmt.Errorf("timeline: %w", err)
	}
	return entries, skipped, nil
}

// record reads one case, from memory while it is open.
func (b *Book) record(id string) (*Record, error) {
	if c := b.liveCase(id); c != nil {
		return c.Record()
	}
	root, err := b.caseRoot(id)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readRecord(root, id)
}

func readRecord(root *os.Root, id string) (*Record, error) {
	f, err := openRegular(root, recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no %s", ErrCorrupt, id, recordFile)
	}
	if err != nil {
		return nil, fmt.Errorf("case %s: %w", id, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return nil, fmt.Errorf("case %s: %w", id, err)
	}
	return parseRecord(data, id)
}

// Get reads the one case that an id, or a unique part of it, names.
func (b *Book) Get(part string) (*Record, error) {
	ids, err := b.ids()
	if err != nil {
		return nil, err
	}
	id, err := findID(ids, part)
	if err != nil {
		return nil, err
	}
	return b.record(id)
}

// GetFull reads a case with as much of its timeline as can be read.
func (b *Book) GetFull(part string) (*Full, error) {
	r, err := b.Get(part)
	if err != nil {
		return nil, err
	}
	timeline, err := b.Timeline(r.ID)
	if err != nil {
		b.log.Debug("timeline not readable", "case", r.ID, "error", err)
	}
	if timeline == nil {
		timeline = []Entry{}
	}
	return &Full{Record: r, Timeline: timeline}, nil
}

// Timeline reads a case's timeline as far as it can be read, and what of it
// still waits in memory for the disk.
func (b *Book) Timeline(id string) ([]Entry, error) {
	entries, err := b.storedTimeline(id)
	if c := b.liveCase(id); c != nil {
		return append(entries, c.waitingEntries()...), nil
	}
	return entries, err
}

func (b *Book) storedTimeline(id string) ([]Entry, error) {
	root, err := b.caseRoot(id)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, timelineFile)
	if err != nil {
		return nil, fmt.Errorf("case %s: %w", id, err)
	}
	defer f.Close()
	entries, _, err := ParseTimeline(f)
	return entries, err
}

// OpenArtifact opens an artifact of a case, also a partial one, and tells its
// size now. The id is a whole one.
func (b *Book) OpenArtifact(id, name string) (*os.File, fs.FileInfo, error) {
	if checkName(name) != nil {
		return nil, nil, fmt.Errorf("case %s: artifact %q: %w", id, name, ErrNoArtifact)
	}
	root, err := b.caseRoot(id)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	f, err := openRegular(root, filepath.Join(artifactsDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("case %s: artifact %q: %w", id, name, ErrNoArtifact)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("artifact %s of case %s: %w", name, id, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("artifact %s of case %s: %w", name, id, err)
	}
	return f, info, nil
}

// checkName refuses names that Create would not have made.
func checkName(name string) error {
	if name == "" || strings.TrimSuffix(name, partial) != cleanName(name) {
		return fs.ErrInvalid
	}
	return nil
}

// openRegular opens a file and nothing that would block or lead elsewhere.
func openRegular(root *os.Root, name string) (*os.File, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", name, ErrCorrupt)
	}
	return root.Open(name)
}
