package report

import (
	"fmt"
	"io"

	"github.com/arbiterd/arbiter/arbiter/casebook"
)

// Keep writes the report of a case beside its record, as report.html. Call it
// once the artifacts are finished, before the case is closed.
func Keep(book *casebook.Book, c *casebook.Case) error {
	full, err := book.GetFull(c.ID())
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var files []File
	for _, a := range full.Artifacts {
		if !Shows(a) {
			continue
		}
		data, err := read(c, a.Name)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		files = append(files, File{Name: a.Name, Data: data})
	}
	return c.WriteReport(func(w io.Writer) error { return Write(w, full, files) })
}

func read(c *casebook.Case, name string) ([]byte, error) {
	f, err := c.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFile))
}
