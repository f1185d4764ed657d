package action

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable makes text from inside a container fit to be shown: control
// characters and what is no UTF-8 become '?', so that it can neither steer a
// terminal nor forge a line, and it is cut at max characters.
func printable(s string, max int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > max {
			b.WriteString("…")
			break
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}
