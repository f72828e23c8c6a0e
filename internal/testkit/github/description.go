package github

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// `make generate-github` writes it; beside it lies its licence.
//
//go:embed description/description.json
var descriptionText []byte

// description is GitHub's own description of its API, as far as description/ holds it.
type description struct {
	document *openapi3.T
	routers  []routers.Router // the first that knows a path counts
}

func loadDescription() (*description, error) {
	document, err := openapi3.NewLoader().LoadFromData(descriptionText)
	if err != nil {
		return nil, fmt.Errorf("GitHub's description: %w", err)
	}
	document.Servers = nil // whatever host is asked for
	mayBeGone(document.Components.Schemas)
	for _, item := range document.Paths.Map() {
		for _, operation := range item.Operations() {
			if body := operation.RequestBody; body != nil {
				for _, content := range body.Value.Content {
					refuseUnknown(content.Schema)
				}
			}
		}
	}
	d := &description{document: document}
	for _, paths := range []*openapi3.Paths{document.Paths, withSlashes(document.Paths)} {
		routed := *document
		routed.Paths = paths
		router, err := gorillamux.NewRouter(&routed)
		if err != nil {
			return nil, fmt.Errorf("GitHub's description: %w", err)
		}
		d.routers = append(d.routers, router)
	}
	return d, nil
}

// mayBeGone lets the head of a pull request be without its repository and owner, which the description denies and GitHub does once a fork is deleted.
func mayBeGone(schemas openapi3.Schemas) {
	for _, name := range []string{"pull-request", "pull-request-simple"} {
		head := schemas[name].Value.Properties["head"].Value.Properties
		for _, field := range []string{"repo", "user"} {
			schema := *head[field].Value
			schema.Nullable = true
			head[field] = &openapi3.SchemaRef{Value: &schema}
		}
	}
}

// withSlashes are the paths with parameters that may hold slashes, such as a branch or a file.
func withSlashes(paths *openapi3.Paths) *openapi3.Paths {
	out := openapi3.NewPaths()
	for path, item := range paths.Map() {
		for _, operation := range item.Operations() {
			for _, p := range operation.Parameters {
				if p.Value.In == openapi3.ParameterInPath && p.Value.Extensions["x-multi-segment"] == true {
					path = strings.ReplaceAll(path, "{"+p.Value.Name+"}", "{"+p.Value.Name+":.+}")
				}
			}
		}
		out.Set(path, item)
	}
	return out
}

// refuseUnknown makes what a request may hold strict: GitHub passes over fields that it does not know, and so over mistakes of ours. What answers use too
// stays as it is.
func refuseUnknown(s *openapi3.SchemaRef) {
	if s == nil || s.Ref != "" || s.Value == nil {
		return
	}
	v := s.Value
	if v.Type.Is(openapi3.TypeObject) && len(v.Properties) > 0 && v.AdditionalProperties.Schema == nil && v.AdditionalProperties.Has == nil {
		no := false
		v.AdditionalProperties.Has = &no
	}
	for _, property := range v.Properties {
		refuseUnknown(property)
	}
	refuseUnknown(v.Items)
}

// blank is the least that an object of the description's may hold: each field that it requires, empty. Addresses are this one.
func (d *description) blank(schema, address string) object {
	return required(d.document.Components.Schemas[schema].Value, address)
}

func required(s *openapi3.Schema, address string) object {
	o := object{}
	for _, field := range s.Required {
		o[field] = blank(s.Properties[field].Value, address)
	}
	return o
}

func blank(s *openapi3.Schema, address string) any {
	switch {
	case s.Nullable:
		return nil
	case len(s.AllOf) > 0:
		return blank(s.AllOf[0].Value, address)
	case len(s.OneOf) > 0:
		return blank(s.OneOf[0].Value, address)
	case len(s.AnyOf) > 0:
		return blank(s.AnyOf[0].Value, address)
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Type.Is(openapi3.TypeBoolean):
		return false
	case s.Type.Is(openapi3.TypeInteger), s.Type.Is(openapi3.TypeNumber):
		return 0
	case s.Type.Is(openapi3.TypeArray):
		return []any{}
	case s.Type.Is(openapi3.TypeString) && s.Format == "uri":
		return address
	case s.Type.Is(openapi3.TypeString) && s.Format == "date-time":
		return "2026-01-01T00:00:00Z"
	case s.Type.Is(openapi3.TypeString):
		return ""
	}
	return required(s, address)
}

func (d *description) find(r *http.Request) (*routers.Route, map[string]string, error) {
	for _, router := range d.routers {
		if route, vars, err := router.FindRoute(r); err == nil {
			for name, value := range vars {
				if plain, err := url.PathUnescape(value); err == nil {
					vars[name] = plain
				}
			}
			return route, vars, nil
		}
	}
	return nil, nil, fmt.Errorf("GitHub's description has no %s %s", r.Method, r.URL.Path)
}

func options() *openapi3filter.Options {
	return &openapi3filter.Options{MultiError: true, IncludeResponseStatus: true, SkipSettingDefaults: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
}

func (d *description) checkRequest(r *http.Request, route *routers.Route, vars map[string]string) error {
	return openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{Request: r, PathParams: vars, Route: route, Options: options()})
}

// checkAnswer checks an answer against its operation; refusals that the description does not list for each operation, such as of a token, have GitHub's
// common form.
func (d *description) checkAnswer(r *http.Request, route *routers.Route, vars map[string]string, a answer) error {
	if _, is := a.body.(verbatim); is {
		return nil // the description knows JSON only
	}
	if a.status >= 400 && route.Operation.Responses.Status(a.status) == nil {
		return d.document.Components.Schemas["basic-error"].Value.VisitJSON(a.value())
	}
	header := a.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", contentType)
	input := &openapi3filter.ResponseValidationInput{Status: a.status, Header: header, Options: options(),
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: vars, Route: route, Options: options()}}
	return openapi3filter.ValidateResponse(r.Context(), input.SetBodyBytes(a.text()))
}

// checkEvent checks the body of a delivery against what GitHub says of such an event.
func (d *description) checkEvent(event, action string, body []byte) error {
	name := strings.ReplaceAll(strings.TrimSuffix(event+"-"+action, "-"), "_", "-")
	said := d.document.Components.RequestBodies[name]
	if said == nil {
		return fmt.Errorf("GitHub's description has no webhook %s; if GitHub does, write it into endpoints.txt", name)
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return err
	}
	return said.Value.Content.Get("application/json").Schema.Value.VisitJSON(value, openapi3.MultiErrors())
}

// complaints are the single things that are wrong, each naming its field. Each error is looked at itself, not what it wraps.
func complaints(err error) (all []string) {
	switch e := any(err).(type) {
	case openapi3.MultiError:
		for _, one := range e {
			all = append(all, complaints(one)...)
		}
		return all
	case *openapi3filter.RequestError:
		switch {
		case e.Err == nil:
			return []string{e.Reason}
		case e.Parameter == nil:
			return complaints(e.Err)
		}
		for _, text := range complaints(e.Err) {
			all = append(all, fmt.Sprintf("For '%s' in the %s: %s", e.Parameter.Name, e.Parameter.In, text))
		}
		return all
	case *openapi3.SchemaError:
		if field := e.JSONPointer(); len(field) > 0 {
			return []string{fmt.Sprintf("For 'properties/%s': %s", strings.Join(field, "/properties/"), e.Reason)}
		}
		return []string{e.Reason}
	}
	return []string{err.Error()}
}
