package action

import "github.com/arbiterd/arbiter/arbiter/casebook"

// CaseArtifacts lets the actions of one step write into a case.
func CaseArtifacts(a *casebook.Artifacts) Artifacts { return caseArtifacts{a} }

type caseArtifacts struct{ dir *casebook.Artifacts }

func (a caseArtifacts) Create(name string) (Artifact, error) {
	f, err := a.dir.Create(name)
	if err != nil {
		return nil, err
	}
	return caseArtifact{f}, nil
}

type caseArtifact struct{ f *casebook.File }

func (a caseArtifact) Write(p []byte) (int, error) { return a.f.Write(p) }
func (a caseArtifact) Close() error                { return a.f.Close() }
func (a caseArtifact) Abort(why error)             { a.f.Abort(why) }

// File is the artifact itself: writes at any offset count against the budgets.
func (a caseArtifact) File() FileWriter { return a.f }
