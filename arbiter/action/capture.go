package action

import (
	"bytes"
	"fmt"
	"strings"
)

const (
	maxOutput = 1 << 20 // bytes of a program's output that are kept
	maxTail   = 512     // of its end, for the summary
)

// A capture keeps the beginning of a program's output as an artifact and its
// end in memory. Write never fails: a full disk must not end the program.
type capture struct {
	artifacts Artifacts
	name      string
	file      Artifact // nil before the first byte
	total     int
	tail      []byte
	err       error // why the artifact is not complete
}

func newCapture(a Artifacts, name string) *capture { return &capture{artifacts: a, name: name} }

func (c *capture) Write(p []byte) (int, error) {
	if c.file == nil && c.err == nil && len(p) > 0 {
		c.file, c.err = c.artifacts.Create(c.name)
	}
	keep := p[:min(len(p), max(0, maxOutput-c.total))]
	if c.err == nil && len(keep) > 0 {
		_, c.err = c.file.Write(keep)
	}
	c.total += len(p)
	c.tail = append(c.tail, p...)
	c.tail = c.tail[max(0, len(c.tail)-maxTail):]
	return len(p), nil
}

// close ends the artifact.
func (c *capture) close() error {
	if c.file == nil {
		return c.err
	}
	if c.total > maxOutput && c.err == nil {
		_, c.err = fmt.Fprintf(c.file, "\n[%d bytes more were not kept]\n", c.total-maxOutput)
	}
	if c.err != nil {
		c.file.Abort(c.err)
		return fmt.Errorf("keep output: %w", c.err)
	}
	if err := c.file.Close(); err != nil {
		return fmt.Errorf("keep output: %w", err)
	}
	return nil
}

// quote is the last line of the output, for a summary or an error.
func (c *capture) quote() string {
	text := bytes.TrimSpace(c.tail)
	text = text[bytes.LastIndexByte(text, '\n')+1:]
	if len(text) == 0 {
		return ""
	}
	return ": " + printable(strings.ToValidUTF8(string(text), "?"), 200)
}
