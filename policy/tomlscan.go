package policy

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// maxNesting bounds tables in tables and the parts of a dotted key: the library
// takes time in proportion to their square.
const maxNesting = 64

// tooDeep finds where a text, valid or not, nests deeper than that.
func tooDeep(text string) (off int, found bool) {
	s := &scanner{text: text}
	depth, dots := 0, 0
	for !s.eof() {
		switch s.peek() {
		case '#':
			s.skipUntil("\n")
			continue
		case '"', '\'':
			s.quoted()
			continue
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '.':
			dots++
		case '\n', '=', ',':
			dots = 0
		}
		if depth > maxNesting || dots > maxNesting {
			return s.off, true
		}
		s.off++
	}
	return 0, false
}

// A scanner walks a TOML text.
type scanner struct {
	text     string
	off      int
	conflict *conflict // the first
}

// A conflict is a key that is given twice.
type conflict struct {
	off   int
	key   string
	first int // offset of the earlier one
}

func (s *scanner) clash(key string, off int, earlier *node) {
	if s.conflict == nil {
		s.conflict = &conflict{off: off, key: key, first: earlier.key}
	}
}

func (s *scanner) eof() bool  { return s.off >= len(s.text) }
func (s *scanner) peek() byte { return s.text[s.off] }

func (s *scanner) accept(c byte) bool {
	if s.eof() || s.peek() != c {
		return false
	}
	s.off++
	return true
}

func (s *scanner) skipSpace() {
	for !s.eof() && (s.peek() == ' ' || s.peek() == '\t') {
		s.off++
	}
}

// skipBlank skips space, line ends and comments.
func (s *scanner) skipBlank() {
	for !s.eof() {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.off++
		case '#':
			s.skipUntil("\n")
		default:
			return
		}
	}
}

// skipUntil stops at the first of the given bytes.
func (s *scanner) skipUntil(stop string) {
	if i := strings.IndexAny(s.text[s.off:], stop); i >= 0 {
		s.off += i
	} else {
		s.off = len(s.text)
	}
}

// header reads [a.b] or [[a.b]] and returns the table that it opens.
func (s *scanner) header(root *node) *node {
	start := s.off
	s.accept('[')
	array := s.accept('[')
	parts := s.keyParts()
	s.accept(']')
	if array {
		s.accept(']')
	}
	n := root
	for i, p := range parts {
		how := madeImplicit
		if i == len(parts)-1 {
			how = madeHeader
			if array {
				how = madeArray
			}
		}
		c, isNew := n.last().add(p.name, start, how)
		if !isNew && !c.reopened(how) {
			s.clash(p.name, p.off, c)
		}
		n = c
	}
	if array {
		n.elems = append(n.elems, &node{key: start, val: start, made: madeHeader})
	}
	return n.last()
}

// reopened reports whether a header may name the node, and marks it.
func (n *node) reopened(how made) bool {
	switch how {
	case madeImplicit: // on the way: into any table that is not closed
		return n.made != madeValue
	case madeHeader:
		ok := n.made == madeImplicit
		n.made = madeHeader
		return ok
	}
	return n.made == madeArray
}

// keyValue reads a.b = value into table.
func (s *scanner) keyValue(table *node) {
	n := table
	parts := s.keyParts()
	for i, p := range parts {
		how := madeDotted
		if i == len(parts)-1 {
			how = madeValue
		}
		c, isNew := n.add(p.name, p.off, how)
		switch {
		case isNew:
			c.by = table
		case how == madeValue || c.made != madeDotted || c.by != table:
			s.clash(p.name, p.off, c)
		}
		n = c
	}
	if s.accept('=') {
		s.value(n)
	}
}

type keyPart struct {
	name string
	off  int
}

// keyParts reads a dotted key, up to the '=' or ']' behind it.
func (s *scanner) keyParts() []keyPart {
	var parts []keyPart
	for {
		s.skipSpace()
		off := s.off
		if s.eof() {
			return parts
		}
		if c := s.peek(); c == '"' || c == '\'' {
			s.quoted()
		} else {
			s.skipUntil(" \t.=]\r\n#")
		}
		parts = append(parts, keyPart{unquoteKey(s.text[off:s.off]), off})
		s.skipSpace()
		if !s.accept('.') {
			return parts
		}
	}
}

// unquoteKey is the key that raw spells.
func unquoteKey(raw string) string {
	if len(raw) < 2 || raw[0] != '"' && raw[0] != '\'' {
		return raw
	}
	if raw[0] == '\'' || !strings.Contains(raw, `\`) {
		return raw[1 : len(raw)-1]
	}
	var v struct{ K string }
	if _, err := toml.Decode("k = "+raw, &v); err != nil {
		return raw
	}
	return v.K
}

// quoted skips a string of any of TOML's four kinds.
func (s *scanner) quoted() {
	quote := s.text[s.off : s.off+1]
	if strings.HasPrefix(s.text[s.off:], quote+quote+quote) {
		s.off += 3
		s.skipString(quote+quote+quote, quote == `"`)
		for s.accept(quote[0]) { // up to two quotes may stand before the closing three
		}
		return
	}
	s.off++
	s.skipString(quote, quote == `"`)
}

func (s *scanner) skipString(end string, escapes bool) {
	for !s.eof() {
		if escapes && s.peek() == '\\' {
			s.off = min(s.off+2, len(s.text))
			continue
		}
		if strings.HasPrefix(s.text[s.off:], end) {
			s.off += len(end)
			return
		}
		if len(end) == 1 && s.peek() == '\n' {
			return // not closed: such a string ends with its line
		}
		s.off++
	}
}

// value reads one value into n.
func (s *scanner) value(n *node) {
	s.skipSpace()
	n.val = s.off
	if s.eof() {
		return
	}
	switch s.peek() {
	case '"', '\'':
		s.quoted()
	case '[':
		s.off++
		s.list(']', func() {
			e := &node{key: s.off}
			n.elems = append(n.elems, e)
			s.value(e)
		})
	case '{':
		s.off++
		s.list('}', func() { s.keyValue(n) })
	default:
		s.skipUntil(",]}#\r\n")
	}
}

// list reads comma-separated items up to end.
func (s *scanner) list(end byte, item func()) {
	for {
		s.skipBlank()
		if s.eof() || s.accept(end) {
			return
		}
		start := s.off
		item()
		s.skipBlank()
		if !s.accept(',') && s.off == start {
			s.off++
		}
	}
}
