package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// reclaimChunk bounds one write to memory.reclaim, which ends only when the
// kernel is done: dirty pages go to disk at some 50 MiB/s.
const reclaimChunk = 16 << 20

// Reclaim makes the kernel drop page cache, dirty pages once they are written
// back, and returns how far usage fell. Version 1 knows no amount: it drops
// all that it can (memory.force_empty). That write cannot be ended early; it
// is left behind when ctx is done.
func (c *v1) Reclaim(ctx context.Context, _ uint64) (reclaimed uint64, err error) {
	f, err := c.self.dir.open("memory.force_empty", unix.O_WRONLY)
	if err != nil {
		return 0, fmt.Errorf("reclaim %s: %w", c.path, err)
	}
	before, err := c.self.dir.number(fileUsage)
	if err != nil {
		_ = f.Close()
		return 0, fmt.Errorf("reclaim %s: %w", c.path, err)
	}
	done := make(chan error, 1)
	go func() {
		done <- c.self.dir.gone(writeAgain(f, "0"))
		_ = f.Close()
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	after, uerr := c.self.dir.number(fileUsage)
	if err := errors.Join(err, uerr); err != nil {
		return before - min(before, after), fmt.Errorf("reclaim %s: %w", c.path, err)
	}
	return before - min(before, after), nil
}

// Reclaim makes the kernel give back bytes, 0 for all that it can, and returns
// how far usage fell. Where the kernel can tell them apart (6.11), only page
// cache and kernel memory go, nothing is swapped out. Needs Linux 5.19.
func (c *v2) Reclaim(ctx context.Context, bytes uint64) (reclaimed uint64, err error) {
	before, err := c.self.dir.number(fileCurrent)
	if err != nil {
		return 0, fmt.Errorf("reclaim %s: %w", c.path, err)
	}
	if bytes == 0 {
		bytes = before
	}
	err = c.reclaim(ctx, bytes)
	after, uerr := c.self.dir.number(fileCurrent)
	if err := errors.Join(err, uerr); err != nil {
		return before - min(before, after), fmt.Errorf("reclaim %s: %w", c.path, err)
	}
	return before - min(before, after), nil
}

func (c *v2) reclaim(ctx context.Context, bytes uint64) error {
	const name = "memory.reclaim"
	if !c.self.dir.has(name) {
		return fmt.Errorf("%s: %w", name, ErrNotSupported)
	}
	f, err := c.self.dir.open(name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	how := " swappiness=0"
	for left := bytes; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := min(left, reclaimChunk)
		err := writeAgain(f, strconv.FormatUint(chunk, 10)+how)
		switch {
		case errors.Is(err, unix.EINVAL) && how != "":
			how = "" // a kernel that takes only the amount
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil // there is no more to give back
		case err != nil:
			return c.self.dir.gone(err)
		}
		left -= chunk
	}
	return nil
}

// writeAgain writes to a file whose write ends early when a signal comes; the
// runtime sends itself some.
func writeAgain(f *os.File, value string) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var werr error
	err = raw.Control(func(fd uintptr) {
		for {
			if _, werr = unix.Write(int(fd), []byte(value)); !errors.Is(werr, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, werr)
}
