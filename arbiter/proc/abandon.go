package proc

import "context"

// Abandon runs f and stops waiting for it when ctx is done. A read that the
// kernel does not let go of then keeps its goroutine until the target moves or
// dies; nothing waits for it.
func Abandon[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
