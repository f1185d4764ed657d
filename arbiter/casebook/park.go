package casebook

// maxParked bounds the closed cases that wait in memory for a full disk.
const maxParked = 1000

// park keeps a closed case that the disk did not take. It reports false if the
// book is closing, or keeps too many already.
func (b *Book) park(c *Case) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing || len(b.parked) >= maxParked {
		b.log.Error("case lost: the disk did not take it", "case", c.id)
		return false
	}
	if b.parked[c.id] == nil {
		b.log.Warn("case is kept in memory until the disk has room", "case", c.id)
	}
	b.parked[c.id] = c
	return true
}

// forget takes a case off the book's lists: from now on it is read from disk.
func (b *Book) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.live, id)
	delete(b.parked, id)
}

// settle tries again to write the cases that wait in memory. The first that
// the disk refuses speaks for the others.
func (b *Book) settle() {
	b.mu.Lock()
	parked := make([]*Case, 0, len(b.parked))
	for _, c := range b.parked {
		parked = append(parked, c)
	}
	b.mu.Unlock()
	for _, c := range parked {
		if err := c.Close(); err != nil {
			return
		}
		b.log.Info("case written that had waited in memory", "case", c.id)
	}
}
