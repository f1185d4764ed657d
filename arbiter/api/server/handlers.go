package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/arbiterd/arbiter/arbiter/api"
	"github.com/arbiterd/arbiter/arbiter/casebook"
	"github.com/arbiterd/arbiter/policy"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /v1/holds", s.holds)
	mux.HandleFunc("GET /v1/cases", s.cases)
	mux.HandleFunc("GET /v1/cases/{id}", s.oneCase)
	mux.HandleFunc("GET /v1/cases/{id}/artifacts/{name}", s.artifact)
	mux.HandleFunc("GET /v1/guards", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, list(s.backend.Guards()), nil) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, s.backend.Status(), nil) })
	mux.HandleFunc("GET /v1/explain", s.explain)
	mux.HandleFunc("POST /v1/cases/{id}/resume", s.resume)
	mux.HandleFunc("POST /v1/cases/{id}/kill", s.kill)
	mux.HandleFunc("POST /v1/cases/{id}/extend", s.extend)
	mux.HandleFunc("POST /v1/pause", s.pause)
	mux.HandleFunc("POST /v1/disarm", s.disarm)
	mux.HandleFunc("POST /v1/reload", s.reload)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		extendWrite(w)
		w.Header().Set("Server", "arbiterd/"+s.opts.Version)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// extendWrite gives a peer more time to read what comes next.
func extendWrite(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// reply answers with v, or with what err means.
func (s *Server) reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		code := statusOf(err)
		if code == http.StatusInternalServerError {
			s.opts.Log.Warn("request failed", "error", err)
		}
		fail(w, code, message(err))
		return
	}
	data, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// A write that fails has lost its reader: there is nobody to tell.
	_, _ = w.Write(append(data, '\n'))
}

// message is an error in the operator's words: the kind that it begins with is
// for the status code.
func message(err error) string {
	text := err.Error()
	for _, kind := range []error{ErrNotFound, ErrConflict, ErrInvalid} {
		text = strings.TrimPrefix(text, kind.Error()+": ")
	}
	return text
}

func fail(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(api.Error{Message: message})
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, casebook.ErrNotFound), errors.Is(err, casebook.ErrNoArtifact):
		return http.StatusNotFound
	case errors.Is(err, ErrConflict):
		return http.StatusConflict
	case errors.Is(err, ErrInvalid), errors.Is(err, casebook.ErrAmbiguous), errors.Is(err, casebook.ErrInvalidID):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// list makes an empty list [] and not null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func (s *Server) cases(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		s.reply(w, nil, err)
		return
	}
	records, err := s.book.List(f)
	l := casebook.Listing{Cases: list(records)}
	if err != nil {
		l.Broken = []string{err.Error()}
	}
	s.reply(w, l, nil)
}

func parseFilter(q url.Values) (casebook.Filter, error) {
	f := casebook.Filter{
		Rule:      q.Get("rule"),
		Outcome:   casebook.Outcome(q.Get("outcome")),
		Trigger:   policy.TriggerKind(q.Get("trigger")),
		Namespace: q.Get("namespace"),
		Container: q.Get("container"),
		Open:      q.Get("open") == "1",
	}
	var errs []error
	parse := func(key string, set func(string) error) {
		if v := q.Get(key); v != "" {
			if err := set(v); err != nil {
				errs = append(errs, fmt.Errorf("%w: %s: %w", ErrInvalid, key, err))
			}
		}
	}
	parse("limit", func(v string) (err error) { f.Limit, err = strconv.Atoi(v); return err })
	parse("since", func(v string) (err error) { f.Since, err = time.Parse(time.RFC3339, v); return err })
	parse("until", func(v string) (err error) { f.Until, err = time.Parse(time.RFC3339, v); return err })
	return f, errors.Join(errs...)
}

func (s *Server) oneCase(w http.ResponseWriter, r *http.Request) {
	full, err := s.book.GetFull(r.PathValue("id"))
	s.reply(w, full, err)
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	target := r.URL.Query().Get("target")
	if target == "" {
		s.reply(w, nil, fmt.Errorf("%w: no target given", ErrInvalid))
		return
	}
	text, err := s.backend.Explain(r.Context(), target)
	s.reply(w, api.Explanation{Text: text}, err)
}

// body reads a request's JSON strictly: an order with a misspelt key is not
// carried out in part. The deadline goes once the body is read: it would cancel
// the request while the order is carried out.
func body[T any](w http.ResponseWriter, r *http.Request) (v T, err error) {
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = ctl.SetReadDeadline(time.Time{}) }()
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil && !errors.Is(err, io.EOF) {
		return v, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return v, nil
}

// order runs an operator's order about one case.
func order[T any](s *Server, w http.ResponseWriter, r *http.Request, f func(id string, req T) (api.Done, error)) {
	id := r.PathValue("id")
	req, err := body[T](w, r)
	if err == nil {
		err = casebook.CheckPart(id)
	}
	if err != nil {
		s.reply(w, nil, err)
		return
	}
	extendOrder(w)
	done, err := f(id, req)
	s.reply(w, done, err)
}

// extendOrder leaves an order the time that clients wait for it.
func extendOrder(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * time.Minute))
}

func (s *Server) resume(w http.ResponseWriter, r *http.Request) {
	order(s, w, r, func(id string, req api.ResumeRequest) (api.Done, error) {
		return s.backend.Resume(r.Context(), id, req, operator(r))
	})
}

func (s *Server) kill(w http.ResponseWriter, r *http.Request) {
	order(s, w, r, func(id string, _ struct{}) (api.Done, error) {
		return s.backend.Kill(r.Context(), id, operator(r))
	})
}

func (s *Server) extend(w http.ResponseWriter, r *http.Request) {
	order(s, w, r, func(id string, req api.ExtendRequest) (api.Done, error) {
		return s.backend.Extend(r.Context(), id, req, operator(r))
	})
}

func (s *Server) pause(w http.ResponseWriter, r *http.Request) {
	req, err := body[api.PauseRequest](w, r)
	if err == nil && req.Target == "" {
		err = fmt.Errorf("%w: no target given", ErrInvalid)
	}
	var done api.Done
	if err == nil {
		done, err = s.backend.Pause(r.Context(), req, operator(r))
	}
	s.reply(w, done, err)
}

func (s *Server) disarm(w http.ResponseWriter, r *http.Request) {
	req, err := body[api.DisarmRequest](w, r)
	if err == nil && (req.Target == "") != req.All {
		err = fmt.Errorf("%w: give a target or all, and not both", ErrInvalid)
	}
	var done api.Done
	if err == nil {
		extendOrder(w)
		done, err = s.backend.Disarm(r.Context(), req, operator(r))
	}
	s.reply(w, done, err)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	done, err := s.backend.Reload(r.Context(), operator(r))
	s.reply(w, done, err)
}
