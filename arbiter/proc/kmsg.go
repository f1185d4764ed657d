package proc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A LogRecord is one record of the kernel's log.
type LogRecord struct {
	At   time.Duration // since boot, roughly: the kernel's local clock
	Text string        // first line only; control characters are written as \xNN by the kernel
}

// KernelLog hands the records that the kernel still has to f, oldest first,
// and returns at the newest without waiting for more. path is /dev/kmsg.
func KernelLog(ctx context.Context, path string, f func(LogRecord)) error {
	// Not an os.File: the runtime's poller would wait for the next record.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open kernel log %s: %w", path, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 8<<10) // the kernel never writes a longer record
	for ctx.Err() == nil {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR): // overwritten meanwhile: go on with the oldest left
			continue
		case err != nil:
			return fmt.Errorf("read kernel log: %w", err)
		}
		if r, err := parseLogRecord(string(buf[:n])); err == nil {
			f(r)
		}
	}
	return fmt.Errorf("read kernel log: %w", ctx.Err())
}

// parseLogRecord parses a record of Documentation/ABI/testing/dev-kmsg:
//
//	6,339,5140900,-;NET: Registered PF_INET protocol family
//	 SUBSYSTEM=...
//
// that is priority, sequence number and microseconds, then the text.
func parseLogRecord(s string) (LogRecord, error) {
	head, text, ok := strings.Cut(s, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return LogRecord{}, fmt.Errorf("no log record in %.80q", s)
	}
	us, err := strconv.ParseInt(fields[2], 10, 50)
	if err != nil || us < 0 {
		return LogRecord{}, fmt.Errorf("no time in log record %.80q", s)
	}
	text, _, _ = strings.Cut(text, "\n")
	return LogRecord{At: time.Duration(us) * time.Microsecond, Text: text}, nil
}
