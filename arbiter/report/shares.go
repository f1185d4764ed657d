package report

// share is one kind of memory.
type share struct {
	What    string
	Bytes   uint64
	Percent float64 // of the limit, 100 at most
}

func sharesOf([]File) []share { return nil }
