package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"towpath/deployment"
)

// Proposal is a pull request, or a group of them that a merge queue is about to merge, and what its merge would do.
type Proposal struct {
	Source       string                `json:"source"`
	Number       int                   `json:"number,omitempty" doc:"of the pull request; absent: it is a group of a merge queue"`
	Head         string                `json:"head" doc:"the commit that is proposed"`
	MergeBase    string                `json:"mergeBase,omitempty" doc:"the commit that it is compared with"`
	Base         string                `json:"base" doc:"the branch that it is to go into"`
	Title        string                `json:"title,omitempty"`
	Author       string                `json:"author,omitempty" doc:"login of who opened it"`
	Fork         bool                  `json:"fork,omitempty" doc:"it comes from another repository"`
	State        string                `json:"state" enum:"ASKED,MADE,HELD,TROUBLED" doc:"of the plan: it is being made; it is as below; a person has to name the commit first; it could not be made, and is tried again"`
	Why          string                `json:"why,omitempty" doc:"where it is HELD or TROUBLED"`
	At           time.Time             `json:"at" doc:"when it was looked at last"`
	Applications []ProposedApplication `json:"applications" nullable:"false"`
}

// ProposedApplication is what a merge would do to an application.
type ProposedApplication struct {
	Application string               `json:"application,omitempty" doc:"absent when its file cannot be read"`
	Path        string               `json:"path" doc:"of its file"`
	Problems    []deployment.Problem `json:"problems" nullable:"false"`
	Targets     []ProposedTarget     `json:"targets" nullable:"false" doc:"that the merge moves"`
	Leaves      []string             `json:"leaves,omitempty" doc:"targets that the file names no longer"`
}

// ProposedTarget is what a merge would do to a target.
type ProposedTarget struct {
	PlannedTarget
	Steps     []string `json:"steps" nullable:"false" doc:"how it moves, in words"`
	Gates     []string `json:"gates,omitempty" doc:"steps that wait for people's approval"`
	Earliest  *float64 `json:"earliestSeconds,omitempty" doc:"after the merge, when people approve at once; absent: it is never reached"`
	Unreached string   `json:"unreached,omitempty" doc:"why it is never reached"`
	Asked     int      `json:"asked" doc:"changed objects about which the API server was asked by a dry run"`
	Unasked   string   `json:"unasked,omitempty" doc:"why it could not be asked"`
	Refusals  []string `json:"refusals,omitempty" doc:"objects that it would refuse, with its words"`
}

func (s *server) proposals() {
	huma.Register(s.api, s.operation(http.MethodGet, "/proposals", "list-proposals", "Open pull requests, and groups of merge queues, with what their merge would do", View),
		func(ctx context.Context, _ *struct{}) (*body[list[Proposal]], error) {
			items, err := s.backend.Proposals(ctx, callerOf(ctx))
			return answer(s, list[Proposal]{Items: items}, err)
		})
}
