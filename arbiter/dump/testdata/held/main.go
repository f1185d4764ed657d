// Command held grows until its memory limit stops it, in a function that a
// debugger must show, with a variable that it must know.
package main

import (
	"fmt"
	"os"
)

var knownVariable = 4242

//go:noinline
func innermost(depth int, block []byte) int {
	if depth > 0 {
		return innermost(depth-1, block) + 1
	}
	for at := 0; at < len(block); at += 4096 {
		block[at] = 1
	}
	return 0
}

func main() {
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		panic(err)
	}
	go func() { select {} }()
	knownVariable++
	fmt.Println("{}")
	fmt.Println(innermost(5, make([]byte, 1<<30)))
}
