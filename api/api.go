package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/sirupsen/logrus"

	"towpath/internal/version"
)

// Caller is who makes a request.
type Caller struct {
	Token  string // its id
	Tenant string
	Name   string
	Grants []string
	Roles  []string
}

// may reports whether the caller holds a grant, or one that includes it.
func (c Caller) may(grant string) bool {
	return slices.Contains(c.Grants, grant) || slices.Contains(c.Grants, Admin) || grant == CallBack && slices.Contains(c.Grants, Start)
}

// Grants that a token may hold. Admin includes view, start and approve.
const (
	View    = "view"
	Start   = "start"
	Approve = "approve"
	// BreakGlass lets a caller start emergencies. Admin does not include it.
	BreakGlass = "breakGlass"
	Admin      = "admin"
	// CallBack lets a webhook call back. Only tokens that are made for one call have it; whoever may start may call back, too.
	CallBack = "callBack"
)

// Backend does what callers may do. Its errors are told to the caller when they are *Problem, and logged otherwise.
type Backend interface {
	// Authenticate says who a bearer token speaks for; ok is false for a token that does not hold.
	Authenticate(ctx context.Context, token string) (caller Caller, ok bool, err error)

	Deployments(ctx context.Context, c Caller, f DeploymentFilter) ([]Deployment, error)
	Deployment(ctx context.Context, c Caller, id string) (Deployment, error)
	// Start, RollBack and Remove make a deployment of this id, unless one has it already; NewID gives one.
	Start(ctx context.Context, c Caller, id string, u Upload) (Started, error)
	NewID() string
	// Attempt begins a request under a key of the caller's, or finds what its first sending came to; Answered remembers what it came to.
	Attempt(ctx context.Context, c Caller, key, request, id string) (Attempt, error)
	Answered(ctx context.Context, c Caller, key string, answer []byte) error
	Plan(ctx context.Context, c Caller, u Upload) (Plan, error)
	// Say says a word to a target that waits: approve, reject, skip or retry.
	Say(ctx context.Context, c Caller, id, verb string, w Word) error
	Cancel(ctx context.Context, c Caller, id, reason string) error
	RollBack(ctx context.Context, c Caller, id, application string, b Back) error
	Holds(ctx context.Context, c Caller) ([]Hold, error)
	Hold(ctx context.Context, c Caller, scope, name, reason string) error
	Unhold(ctx context.Context, c Caller, scope, name string) error

	// Calls lists what the steps of a deployment have asked of the world outside.
	Calls(ctx context.Context, c Caller, deployment string) ([]Called, error)
	// Replay asks a metric provider what a query would have come to in the past.
	Replay(ctx context.Context, c Caller, r Replay) ([]Replayed, error)
	// CallBack takes what a webhook says of what it has done.
	CallBack(ctx context.Context, c Caller, call string, success bool, message string) error

	// Proposals are the open proposals of the caller's tenant.
	Proposals(ctx context.Context, c Caller) ([]Proposal, error)
	// Previews lists the links of a deployment; without one, whatever leads into clusters now.
	Previews(ctx context.Context, c Caller, deployment string) ([]Preview, error)
	// OpenCluster makes a way to all that an agent may do in its cluster, for a while.
	OpenCluster(ctx context.Context, c Caller, agent string, lasts time.Duration) (ClusterPreview, error)
	// EndPreview ends a link, or a way into a cluster, before its time.
	EndPreview(ctx context.Context, c Caller, id string) error

	Applications(ctx context.Context, c Caller, f ApplicationFilter) ([]Application, error)
	Remove(ctx context.Context, c Caller, id, name string, keep bool) error
	Agents(ctx context.Context, c Caller) ([]Agent, error)
	CreateAgent(ctx context.Context, c Caller, n NewAgent) (Credential, error)
	// RotateAgent gives an agent a new secret beside the old one, which holds for keep longer. 0 also ends the tokens that were given by the old one.
	RotateAgent(ctx context.Context, c Caller, name string, keep time.Duration) (Credential, error)
	// RevokeAgent ends the tokens that an agent was given, and its sessions; its credential stays.
	RevokeAgent(ctx context.Context, c Caller, name string) error
	RemoveAgent(ctx context.Context, c Caller, name string) error
	// AcceptCluster accepts that an agent connects from another cluster, and starts what was good on the former one.
	AcceptCluster(ctx context.Context, c Caller, name string) (Accepted, error)
	Sources(ctx context.Context, c Caller) ([]Source, error)
	// Observing reports whether nothing may be changed yet: the database was lost, and what runs is being found out.
	Observing(ctx context.Context) (bool, error)

	// Events lists events after one; News is ready when there may be more, and closed when the server stops.
	Events(ctx context.Context, c Caller, f EventFilter) ([]Event, error)
	News() (news <-chan struct{}, stop func())

	// Deliver takes a webhook's delivery in; verified by what the source's configuration says.
	Deliver(ctx context.Context, source string, header http.Header, body []byte) error
	// DeliverOfApp takes a delivery of the webhook of one of the GitHub Apps in.
	DeliverOfApp(ctx context.Context, header http.Header, body []byte) error
}

// DeploymentFilter says which deployments are wanted; zero fields match all.
type DeploymentFilter struct {
	Application, State, Source, Commit, Before string
	Limit                                      int
}

// ApplicationFilter says which applications are wanted; zero fields match all.
type ApplicationFilter struct {
	Name, After string
	Limit       int
}

// EventFilter says which events are wanted; zero fields match all.
type EventFilter struct {
	Application, Deployment string
	After                   int64
	Limit                   int
}

// Problem is an error that the caller can do something about.
type Problem struct {
	Status  int
	Type    string // a URI that programs tell it by; "": its status says enough
	Text    string
	Details []error // *huma.ErrorDetail, with places
}

func (p *Problem) Error() string { return p.Text }

// UnderWay is the type of the problem that another deployment of the application is under way.
const UnderWay = "urn:towpath:under-way"

// New makes the handler of everything below /api/v1, and of what GitHub Apps deliver to /webhooks/github.
func New(backend Backend, log *logrus.Entry) http.Handler {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Towpath", version.String())
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "/api/v1/openapi", "", "/api/v1/schemas"
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	config.Info.Description = "Everything the command line does. A refusal is a problem (RFC 9457) whose detail says what to do."
	s := &server{backend: backend, log: log, api: humago.New(mux, config)}
	s.deployments()
	s.applications()
	s.holds()
	s.people()
	s.calls()
	s.replays()
	s.previews()
	s.proposals()
	s.events()
	mux.HandleFunc("POST /api/v1/webhooks/{source}", s.webhook(func(r *http.Request, body []byte) error {
		return backend.Deliver(r.Context(), r.PathValue("source"), r.Header, body)
	}))
	mux.HandleFunc("POST /webhooks/github", s.webhook(func(r *http.Request, body []byte) error { return backend.DeliverOfApp(r.Context(), r.Header, body) }))
	mux.HandleFunc("/api/v1/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, fmt.Sprintf("no operation %s %.200s; /api/v1/openapi.json lists them", r.Method, r.URL.Path))
	})
	return mux
}

type server struct {
	backend Backend
	log     *logrus.Entry
	api     huma.API
}

// changing makes an operation one that changes what runs: it is refused while the controller observes.
func (s *server) changing(op huma.Operation) huma.Operation {
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		on, err := s.backend.Observing(ctx.Context())
		if err != nil {
			s.log.WithError(err).Error("whether the controller observes could not be read")
			huma.WriteErr(s.api, ctx, http.StatusInternalServerError, "whether the controller observes could not be read; its log says why")
			return
		}
		if on {
			huma.WriteErr(s.api, ctx, http.StatusConflict, "the controller observes since its database was lost, and touches nothing; have it go on with: towpath-controller resume")
			return
		}
		next(ctx)
	})
	if !slices.Contains(op.Errors, http.StatusConflict) {
		op.Errors = append(op.Errors, http.StatusConflict)
	}
	return op
}

type callerKey struct{}

func callerOf(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}

// maxBody is the largest upload: 64 MiB of files in base64, and what surrounds them.
const maxBody = 90 << 20

// operation describes an operation that needs a grant.
func (s *server) operation(method, path, id, summary, grant string) huma.Operation {
	return huma.Operation{Method: method, Path: "/api/v1" + path, OperationID: id, Summary: summary, Description: "Needs the grant " + grant + ".",
		Security: []map[string][]string{{"token": {}}}, Middlewares: huma.Middlewares{s.allowed(grant)}, MaxBodyBytes: maxBody,
		Errors: []int{http.StatusUnauthorized, http.StatusForbidden}}
}

// allowed lets a request through when its token holds the grant.
func (s *server) allowed(grant string) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		token, bearer := strings.CutPrefix(ctx.Header("Authorization"), "Bearer ")
		if !bearer || token == "" {
			ctx.SetHeader("WWW-Authenticate", "Bearer")
			huma.WriteErr(s.api, ctx, http.StatusUnauthorized, "no token; `towpath-controller token create` makes one, and TOWPATH_TOKEN gives it to the command line")
			return
		}
		caller, ok, err := s.backend.Authenticate(ctx.Context(), token)
		switch {
		case err != nil:
			s.log.WithError(err).Error("a token could not be checked")
			huma.WriteErr(s.api, ctx, http.StatusInternalServerError, "the token could not be checked; the controller's log says why")
		case !ok:
			ctx.SetHeader("WWW-Authenticate", `Bearer error="invalid_token"`)
			huma.WriteErr(s.api, ctx, http.StatusUnauthorized, "the token is not known, has expired or was revoked")
		case !caller.may(grant):
			lacks := "lacks the grant " + grant
			if grant == CallBack {
				lacks = "calls nothing back: that takes the token of this call, or one with the grant start"
			}
			huma.WriteErr(s.api, ctx, http.StatusForbidden, "the token of "+caller.Name+" "+lacks)
		default:
			next(huma.WithValue(ctx, callerKey{}, caller))
		}
	}
}

// fail makes an answer of an error: what the caller can mend is told, the rest is logged.
func (s *server) fail(err error) error {
	var problem *Problem
	if errors.As(err, &problem) {
		answer := huma.NewError(problem.Status, problem.Text, problem.Details...)
		if model, ok := answer.(*huma.ErrorModel); ok {
			model.Type = problem.Type
		}
		return answer
	}
	s.log.WithError(err).Error("a request failed")
	return huma.Error500InternalServerError("the request failed; the controller's log says why")
}

// body is an answer with a body.
type body[T any] struct{ Body T }

func answer[T any](s *server, v T, err error) (*body[T], error) {
	if err != nil {
		return nil, s.fail(err)
	}
	return &body[T]{v}, nil
}
