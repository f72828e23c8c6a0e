package github

import (
	_ "embed"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/rules"
)

//go:embed description/minimize.graphql
var graphqlText string

// graphqlSchema is the part of GitHub's GraphQL that the mutation needs which REST lacks.
var graphqlSchema = sync.OnceValues(func() (*ast.Schema, error) {
	return gqlparser.LoadSchema(&ast.Source{Name: "minimize.graphql", Input: graphqlText})
})

// isGraphQL: an Enterprise Server has it beside its REST API, not below.
func isGraphQL(r *http.Request) bool {
	return r.Method == http.MethodPost && (r.URL.Path == "/graphql" || r.URL.Path == "/api/graphql")
}

// graphql answers with 200 also where it refuses: what is wrong stands in "errors".
func graphql(c *call) answer {
	var body struct {
		Query         string
		OperationName string
		Variables     map[string]any
	}
	if err := c.read(&body); err != nil {
		return refuse(http.StatusBadRequest, "Problems parsing JSON")
	}
	schema, err := graphqlSchema()
	if err != nil {
		panic(err) // it is embedded
	}
	document, wrong := gqlparser.LoadQueryWithRules(schema, body.Query, rules.NewDefaultRules())
	if len(wrong) > 0 {
		return graphqlErrors(nil, wrong...)
	}
	operation := document.Operations.ForName(body.OperationName)
	if operation == nil || operation.Operation != ast.Mutation {
		return graphqlErrors(nil, gqlerror.Errorf("this GitHub for tests knows one mutation, minimizeComment, and no query"))
	}
	variables, err := validator.VariableValues(schema, operation, body.Variables)
	if err != nil {
		return graphqlErrors(nil, gqlerror.Wrap(err))
	}
	data, errs := object{}, gqlerror.List{}
	for _, field := range fields(operation.SelectionSet) {
		payload, err := c.minimize(field, variables)
		if err != nil {
			errs = append(errs, err)
		}
		data[field.Alias] = payload
	}
	if len(errs) > 0 {
		return graphqlErrors(data, errs...)
	}
	return done(http.StatusOK, object{"data": data})
}

func graphqlErrors(data any, errs ...*gqlerror.Error) answer {
	shown := make([]object, len(errs))
	for i, e := range errs {
		shown[i] = object{"message": e.Message, "path": e.Path, "locations": e.Locations}
		if kind := e.Extensions["type"]; kind != nil {
			shown[i]["type"] = kind
		}
	}
	return done(http.StatusOK, object{"data": data, "errors": shown})
}

// minimize hides a comment; nil: it was refused.
func (c *call) minimize(field *ast.Field, variables map[string]any) (any, *gqlerror.Error) {
	input, _ := field.ArgumentMap(variables)["input"].(map[string]any)
	node, classifier := fmt.Sprint(input["subjectId"]), fmt.Sprint(input["classifier"])
	failed := func(kind, message string) (any, *gqlerror.Error) {
		e := gqlerror.ErrorPosf(field.Position, "%s", message)
		e.Path, e.Extensions = ast.Path{ast.PathName(field.Alias)}, map[string]any{"type": kind}
		return nil, e
	}
	for _, r := range c.g.repositories {
		for _, found := range r.comments {
			switch {
			case nodeOf(found) != node || len(c.rights(r)) == 0:
				continue
			case !c.may(r, "write", "pull_requests", "issues"):
				return failed("FORBIDDEN", "Resource not accessible by integration")
			}
			found.Minimized = classifier
			c.g.written["minimizeComment"]++
			return chosen(field.SelectionSet, object{"__typename": "MinimizeCommentPayload", "clientMutationId": input["clientMutationId"], "minimizedComment": object{"__typename": "IssueComment",
				"id": node, "isMinimized": true, "minimizedReason": reason(found), "viewerCanMinimize": true}}), nil
		}
	}
	return failed("NOT_FOUND", fmt.Sprintf("Could not resolve to a node with the global id of '%s'.", node))
}

// reason is how GitHub shows why a comment is hidden.
func reason(c *Comment) string { return strings.ToLower(strings.ReplaceAll(c.Minimized, "_", "-")) }

// fields are those that a selection asks for, in fragments too.
func fields(set ast.SelectionSet) (all []*ast.Field) {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			all = append(all, s)
		case *ast.InlineFragment:
			all = append(all, fields(s.SelectionSet)...)
		case *ast.FragmentSpread:
			all = append(all, fields(s.Definition.SelectionSet)...)
		}
	}
	return all
}

// chosen is what a selection takes of an object.
func chosen(set ast.SelectionSet, of object) object {
	out := object{}
	for _, f := range fields(set) {
		value := of[f.Name]
		if inner, is := value.(object); is {
			value = chosen(f.SelectionSet, inner)
		}
		out[f.Alias] = value
	}
	return out
}
