package policy

import (
	"sort"
	"unicode/utf8"
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
