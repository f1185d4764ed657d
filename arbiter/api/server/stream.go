package server

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/arbiterd/arbiter/arbiter/casebook"
)

const (
	// watchPause bounds how often a watcher is told of changes.
	watchPause = 100 * time.Millisecond
	// watchBeat is how often it is told although nothing changed: usage moves
	// on, and a peer that went away is noticed.
	watchBeat = 2 * time.Second
)

func (s *Server) holds(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("watch") != "1" {
		s.reply(w, list(s.backend.Holds()), nil)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	enc, ctl := json.NewEncoder(w), http.NewResponseController(w)
	for {
		changed := s.backend.Changed()
		extendWrite(w)
		if enc.Encode(list(s.backend.Holds())) != nil || ctl.Flush() != nil {
			return
		}
		if !wait(r, changed) {
			return
		}
	}
}

// wait waits for a change or the next beat, but at least watchPause. It
// reports whether the peer is still there.
func wait(r *http.Request, changed <-chan struct{}) bool {
	pause := time.NewTimer(watchPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-r.Context().Done():
		return false
	}
	beat := time.NewTimer(watchBeat - watchPause)
	defer beat.Stop()
	select {
	case <-changed:
	case <-beat.C:
	case <-r.Context().Done():
		return false
	}
	return true
}

// artifact streams a file. Range lets a client go on where it was cut off.
func (s *Server) artifact(w http.ResponseWriter, r *http.Request) {
	if err := casebook.CheckPart(r.PathValue("id")); err != nil {
		s.reply(w, nil, err)
		return
	}
	f, info, err := s.book.OpenArtifact(r.PathValue("id"), r.PathValue("name"))
	if err != nil {
		s.reply(w, nil, err)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(patient{w}, r, "", info.ModTime(), f)
}

// patient gives the peer new time at every part of a long answer.
type patient struct{ http.ResponseWriter }

func (p patient) Write(b []byte) (int, error) {
	extendWrite(p.ResponseWriter)
	return p.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (p patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
