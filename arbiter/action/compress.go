package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// compressedSuffix is what compression adds to an artifact's name.
const compressedSuffix = ".zst"

var errNoShelf = errors.New("the case has no directory")

// compressLater replaces an artifact by its compressed form, once the verdict
// was carried out. Whatever goes wrong, one of the two is there.
func compressLater(env Env, path string) Work {
	name := filepath.Base(path)
	return func(ctx context.Context) (string, error) {
		if err := compressArtifact(ctx, env, name); err != nil {
			return "", fmt.Errorf("compress %s: %w", name, err)
		}
		return "", nil
	}
}

func compressArtifact(ctx context.Context, env Env, name string) error {
	shelf := shelfOf(env)
	if shelf == nil {
		return errNoShelf
	}
	in, err := shelf.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := env.Artifacts.Create(name + compressedSuffix)
	if err != nil {
		return err
	}
	if err := compressTo(ctx, out, in); err != nil {
		out.Abort(err)
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return shelf.Remove(name)
}

// compressTo writes in to out with the fastest level: a core is large, and
// most of it is zero or repeats itself.
func compressTo(ctx context.Context, out io.Writer, in io.Reader) error {
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, contextReader{ctx, in}); err != nil {
		return errors.Join(err, z.Close())
	}
	return z.Close()
}

// A contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func shelfOf(env Env) Shelf {
	if env.Shelf == nil {
		return nil
	}
	return env.Shelf()
}
