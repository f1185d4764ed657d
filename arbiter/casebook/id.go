package casebook

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

const idTime = "20060102T150405"

// Errors of a look-up. Their texts are for the operator.
var (
	ErrNotFound   = errors.New("no such case")
	ErrAmbiguous  = errors.New("names more than one case")
	ErrInvalidID  = errors.New("not a case id")
	ErrNoArtifact = errors.New("no such artifact")
)

// IDTick is the time between two ids that NewID tells apart, rounded up.
const IDTick = time.Second/(1<<16) + 1

// NewID makes the id of a case that opens now: UTC time and four hex digits,
// "20261121T061502-7f3a". The digits are the fraction of the second, so that
// ids sort in the order in which cases opened.
func NewID(now time.Time) string {
	return fmt.Sprintf("%s-%04x", now.UTC().Format(idTime), int64(now.Nanosecond())<<16/int64(time.Second))
}

// TimeOf is the time that an id was made at. It reports whether id is one.
func TimeOf(id string) (time.Time, bool) {
	stamp, tail, ok := strings.Cut(id, "-")
	if !ok || len(stamp) != len(idTime) || len(tail) != 4 || strings.Trim(tail, "0123456789abcdef") != "" {
		return time.Time{}, false
	}
	t, err := time.Parse(idTime, stamp)
	return t, err == nil
}

// CheckPart refuses what no id can contain, so that nothing from outside ever
// becomes part of a path.
func CheckPart(part string) error {
	if part == "" || len(part) > len(idTime)+5 || strings.Trim(part, "0123456789abcdefT-") != "" {
		return fmt.Errorf("%q: %w", part, ErrInvalidID)
	}
	return nil
}

// findID picks the one id that is part or contains it.
func findID(ids []string, part string) (string, error) {
	if err := CheckPart(part); err != nil {
		return "", err
	}
	var hits []string
	for _, id := range ids {
		if id == part {
			return id, nil
		}
		if strings.Contains(id, part) {
			hits = append(hits, id)
		}
	}
	switch len(hits) {
	case 0:
		return "", fmt.Errorf("%q: %w", part, ErrNotFound)
	case 1:
		return hits[0], nil
	}
	shown, more := hits, ""
	if len(hits) > 4 {
		shown, more = hits[:4], fmt.Sprintf(" and %d more", len(hits)-4)
	}
	return "", fmt.Errorf("%q: %w: %s%s", part, ErrAmbiguous, strings.Join(shown, ", "), more)
}
