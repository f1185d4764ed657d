package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/arbiterd/arbiter/arbiter/casebook"
)

// part is the end of the name of a file that is not complete.
const part = ".part"

// A download fetches one artifact into PATH.part, and names it PATH once it is
// complete and its sum agrees.
type download struct {
	*app
	id   string
	x    casebook.Artifact
	path string
}

func (d download) run(ctx context.Context) error {
	f, err := os.OpenFile(d.path+part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	have, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if have > d.x.Size || d.x.Partial {
		// It is of another time: begin anew.
		have = 0
		sum.Reset()
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	if have < d.x.Size || have == 0 {
		if err := d.fetch(ctx, f, sum, have); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); d.x.SHA256 != "" && got != d.x.SHA256 {
		return errors.Join(fmt.Errorf("its sha256 is %s, the daemon recorded %s", got, d.x.SHA256), os.Remove(d.path+part))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(d.path+part, d.path)
}

func (d download) fetch(ctx context.Context, f *os.File, sum hash.Hash, have int64) error {
	r, size, err := d.api().Artifact(ctx, d.id, d.x.Name, have)
	if err != nil {
		return err
	}
	defer r.Close()
	w := &sparseWriter{f: f, off: have}
	if err := d.transfer(ctx, d.x.Name, r, io.MultiWriter(w, sum), have, size); err != nil {
		return errors.Join(err, w.end())
	}
	return w.end()
}

// A sparseWriter leaves holes where whole pages are zero: a core dump may be a
// hundred times larger than what is in it.
type sparseWriter struct {
	f   *os.File
	off int64
}

const page = 4096

func (w *sparseWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		// Up to the next page boundary of the file.
		n := min(page-int(w.off%page), len(p)-done)
		chunk := p[done : done+n]
		if n < page || !allZero(chunk) {
			if _, err := w.f.WriteAt(chunk, w.off); err != nil {
				return done, err
			}
		}
		w.off += int64(n)
		done += n
	}
	return done, nil
}

// end gives the file its length, which a hole at its end does not.
func (w *sparseWriter) end() error { return w.f.Truncate(w.off) }

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// transfer copies and tells how far it is, at what rate, and how long it takes.
func (a *app) transfer(ctx context.Context, name string, r io.Reader, w io.Writer, have, size int64) error {
	p := progress{app: a, name: name, from: have, done: have, size: size, began: a.now(), live: isTerminal(a.stderr)}
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			p.add(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("cut off after %s of %s; run it again to go on: %w", human(uint64(p.done)), human(uint64(max(size, 0))), orCause(ctx, err))
		}
	}
	p.end()
	return nil
}

func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// progress tells how a transfer goes: while it runs where somebody watches, and
// once it is done.
type progress struct {
	*app
	name             string
	from, done, size int64
	began, told      time.Time
	live             bool
}

func (p *progress) add(n int) {
	p.done += int64(n)
	now := p.now()
	if !p.live || now.Sub(p.told) < 250*time.Millisecond {
		return
	}
	p.told = now
	fmt.Fprintf(p.stderr, "\r%s\x1b[K", p.line(now.Sub(p.began)))
}

// line is "core.1  120MiB of 400MiB  30%  95MiB/s  3s left".
func (p *progress) line(elapsed time.Duration) string {
	text := p.name + "  " + human(uint64(p.done))
	rate := float64(p.done-p.from) / max(elapsed.Seconds(), 0.001)
	if p.size > 0 {
		text += fmt.Sprintf(" of %s  %d%%", human(uint64(p.size)), p.done*100/p.size)
	}
	text += fmt.Sprintf("  %s/s", human(uint64(rate)))
	if p.size > p.done && rate > 0 {
		left := time.Duration(float64(p.size-p.done) / rate * float64(time.Second))
		text += "  " + short(left.Truncate(time.Second)) + " left"
	}
	return text
}

func (p *progress) end() {
	elapsed := p.now().Sub(p.began)
	rate := float64(p.done-p.from) / max(elapsed.Seconds(), 0.001)
	line := fmt.Sprintf("%s  %s in %s, %s/s", p.name, human(uint64(p.done)), short(elapsed), human(uint64(rate)))
	if p.live {
		line = "\r" + line + "\x1b[K"
	}
	p.hint("%s", line)
}
