package jvm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// plainCore is the path of a core that is not compressed: core itself, or what
// it unpacks to in dir, sparse again.
func plainCore(ctx context.Context, core, dir string) (string, error) {
	if !strings.HasSuffix(core, ".zst") {
		return core, nil
	}
	in, err := os.Open(core)
	if err != nil {
		return "", err
	}
	defer in.Close()
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return "", err
	}
	defer z.Close()
	name := filepath.Join(dir, "core.elf")
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	return name, errors.Join(copySparse(ctx, out, z), out.Close())
}

// copySparse leaves holes where in is zero.
func copySparse(ctx context.Context, out *os.File, in io.Reader) error {
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	var at int64
	for ctx.Err() == nil {
		n, err := io.ReadFull(in, buf)
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if endOfFile(err) {
			return out.Truncate(at)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
