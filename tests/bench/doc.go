// Package bench measures, it does not judge: run it with `make bench` on a
// quiet machine. It is no part of CI.
package bench
