package casebook

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// worthwhile is the disk space below which a case is not removed to make room:
// its record is worth more than the room.
const worthwhile = 64 << 10

// Prune removes closed cases: all that are older than Retain, then the oldest
// until the book keeps to MaxCases, MaxBytes and MinFree. Open cases stay.
// It returns the ids of those that it removed.
func (b *Book) Prune(now time.Time) ([]string, error) {
	defer b.settle() // into the room that was made
	ids, err := b.ids()
	if err != nil {
		return nil, fmt.Errorf("prune casebook: %w", err)
	}
	slices.Reverse(ids) // oldest first
	ids = slices.DeleteFunc(ids, func(id string) bool { return b.liveCase(id) != nil })
	var removed []string
	var errs []error
	crowded := b.crowded()
	for i, id := range ids {
		why, err := b.prunable(id, len(ids)-i, crowded, now)
		if why != "" && err == nil {
			err = b.remove(id)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if why != "" {
			b.log.Info("case removed", "case", id, "reason", why)
			removed = append(removed, id)
			crowded = b.crowded()
		}
	}
	return removed, errors.Join(errs...)
}

// prunable says why a case has to go; left counts it and those newer than it.
func (b *Book) prunable(id string, left int, crowded string, now time.Time) (why string, err error) {
	switch {
	case b.old(id, now):
		return "older than retain", nil
	case b.limits.MaxCases > 0 && left > b.limits.MaxCases:
		return "more cases than are kept", nil
	case crowded == "":
		return "", nil
	}
	size, err := b.caseUse(id)
	if err != nil || size < worthwhile {
		return "", err
	}
	return crowded, nil
}

// old judges by the id where it can: a case closes after it opened. One whose
// record cannot be read goes by its id alone.
func (b *Book) old(id string, now time.Time) bool {
	at, _ := TimeOf(id)
	if b.limits.Retain <= 0 || now.Sub(at) <= b.limits.Retain {
		return false
	}
	if r, err := b.record(id); err == nil && r.Closed.After(at) {
		at = r.Closed
	}
	return now.Sub(at) > b.limits.Retain
}

// crowded says which of the disk limits is broken now.
func (b *Book) crowded() string {
	total, free, err := b.budget.disk()
	if err != nil {
		return ""
	}
	if m := size(b.limits.MaxBytes, total); m > 0 && b.budget.total() > m {
		return "all cases are over max-size"
	}
	if free < size(b.limits.MinFree, total) {
		return "the disk is under min-free"
	}
	return ""
}

func (b *Book) caseUse(id string) (int64, error) {
	root, err := b.caseRoot(id)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return diskUse(root, ".")
}

// remove removes a closed case. It is renamed first, so that a crash leaves no
// half of it behind.
func (b *Book) remove(id string) error {
	used, err := b.caseUse(id)
	if err != nil {
		return fmt.Errorf("remove case %s: %w", id, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.root == nil || b.live[id] != nil {
		return nil
	}
	if err := b.root.Rename(id, trash+id); err != nil {
		return fmt.Errorf("remove case %s: %w", id, err)
	}
	b.budget.add(-used)
	if err := b.root.RemoveAll(trash + id); err != nil {
		return fmt.Errorf("remove case %s: %w", id, err)
	}
	return nil
}
