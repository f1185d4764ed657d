package casebook

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	partial    = ".partial"
	maxNameLen = 200
)

// Artifacts is where one step of a case puts its files.
type Artifacts struct {
	c    *Case
	step string
}

// Artifacts is the place for the files of a step.
func (c *Case) Artifacts(step string) *Artifacts { return &Artifacts{c: c, step: step} }

// Create opens a new artifact, NAME.partial until Close. A name may come from
// inside a container: whatever is no letter, digit, dot, dash or underscore
// becomes an underscore. A name that is taken gets a number.
func (a *Artifacts) Create(name string) (*File, error) {
	c := a.c
	c.disk.Lock()
	err := c.ready()
	root := c.root
	c.disk.Unlock()
	if err != nil {
		return nil, fmt.Errorf("create artifact %s: %w", name, err)
	}
	if err := c.book.budget.take(0, 0); err != nil {
		return nil, fmt.Errorf("create artifact %s: %w", name, err)
	}
	name = cleanName(name)
	for i := 1; i <= 1000; i++ {
		try := numbered(name, i)
		if _, err := root.Lstat(filepath.Join(artifactsDir, try)); err == nil {
			continue
		}
		f, err := root.OpenFile(filepath.Join(artifactsDir, try+partial), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("create artifact %s: %w", try, err)
		}
		af := &File{c: c, root: root, f: f, name: try, step: a.step, sum: sha256.New()}
		c.mu.Lock()
		c.files = append(c.files, af)
		c.mu.Unlock()
		return af, nil
	}
	return nil, fmt.Errorf("create artifact %s: %w", name, fs.ErrExist)
}

// cleanName makes a file name of what may come from a hostile container.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		}
		return '_'
	}, name)
	name = strings.TrimLeft(name, ".")
	for strings.HasSuffix(name, partial) {
		name = strings.TrimSuffix(name, partial)
	}
	if len(name) > maxNameLen {
		name = name[:maxNameLen]
	}
	if name == "" {
		return "artifact"
	}
	return name
}

// numbered is name, name-2, name-3, with the number before the extension.
func numbered(name string, i int) string {
	if i == 1 {
		return name
	}
	base, ext, found := strings.Cut(name, ".")
	if found {
		ext = "." + ext
	}
	return fmt.Sprintf("%s-%d%s", base, i, ext)
}
