package policy

import (
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A node is the place of one value in a TOML text: the index that gives every
// key and every array element a position. The library's own metadata knows no
// positions and does not tell the elements of an array apart.
type node struct {
	key   int // offset of the key or header that made it; of the value for an element
	val   int // offset of the value
	keys  map[string]*node
	elems []*node
	made  made
	by    *node // madeDotted: the table whose body made it
}

// made is how a node came to be, which decides what may still be added to it.
type made uint8

const (
	madeImplicit made = iota // named on the way by a header: [a.b] makes a
	madeHeader               // [a]
	madeArray                // [[a]]
	madeDotted               // a.b = 1 makes a
	madeValue                // a = ...: closed, inline tables too
)

// child is the node of a key, or n itself where the index does not know it: a
// position nearby beats none.
func (n *node) child(key string) *node {
	if c := n.keys[key]; c != nil {
		return c
	}
	return n
}

// has reports whether the table has the key.
func (n *node) has(key string) bool { return n != nil && n.keys[key] != nil }

// elem is the node of element i, or n itself.
func (n *node) elem(i int) *node {
	if i < len(n.elems) {
		return n.elems[i]
	}
	return n
}

// add is the child of a key, made now if there is none yet.
func (n *node) add(key string, off int, how made) (c *node, isNew bool) {
	if c := n.keys[key]; c != nil {
		return c, false
	}
	if n.keys == nil {
		n.keys = make(map[string]*node)
	}
	c = &node{key: off, val: off, made: how}
	n.keys[key] = c
	return c, true
}

// last is the table that a header names: of an array, its last element.
func (n *node) last() *node {
	if len(n.elems) > 0 {
		return n.elems[len(n.elems)-1]
	}
	return n
}

// indexTOML walks a text that the library has accepted. On a text that it does
// not understand it skips ahead. It also finds what the library overlooks: a
// key that is given twice by way of dotted keys, tables and inline tables. The
// conflict is nil if there is none.
func indexTOML(text string) (*node, *conflict) {
	s := &scanner{text: text}
	root := &node{made: madeHeader}
	table := root
	for {
		s.skipBlank()
		if s.eof() {
			return root, s.conflict
		}
		start := s.off
		if s.peek() == '[' {
			table = s.header(root)
		} else {
			s.keyValue(table)
		}
		if s.off == start {
			s.off++
		}
	}
}

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

// lines turns offsets into positions.
type lines struct {
	file, text string
	starts     []int // offset of each line's first byte
}

func newLines(file, text string) *lines {
	l := &lines{file: file, text: text, starts: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			l.starts = append(l.starts, i+1)
		}
	}
	return l
}

// at is the position of an offset; the column counts characters.
func (l *lines) at(off int) Position {
	off = max(0, min(off, len(l.text)))
	line := sort.SearchInts(l.starts, off+1) - 1
	col := utf8.RuneCountInString(l.text[l.starts[line]:off]) + 1
	return Position{File: l.file, Line: line + 1, Column: col}
}
