package rules

import (
	"strings"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Limits of evaluation. The language has no loops beside those over lists and maps, and nothing that waits; what is made of lists and texts costs steps by its
// length, so that steps bound memory, too.
const (
	costLimit  = 1_000_000 // steps of one expression on one object: about a tenth of a second
	regexLimit = 500       // instructions; long texts times long patterns is all that one call can cost
	nodeLimit  = 5_000     // of an expression, macros written out
	depthLimit = 50
)

// inVariables comes before the names of variables.
const inVariables = "variables."

// language is what expressions may name, beside the variables of their rule.
func language() *cel.Env {
	env, err := cel.NewEnv(cel.OptionalTypes(), cel.DefaultUTCTimeZone(true), cel.CrossTypeNumericComparisons(true),
		cel.ParserRecursionLimit(depthLimit), cel.ParserExpressionSizeLimit(maxExpression), cel.ExpressionNodeLimit(nodeLimit), cel.RegexProgramSizeLimit(regexLimit),
		cel.ParserErrorRecoveryLimit(5),
		cel.Variable("object", cel.DynType), cel.Variable("oldObject", cel.DynType), cel.Variable("podSpec", cel.DynType), cel.Variable("containers", cel.ListType(cel.DynType)),
		cel.Variable("operation", cel.StringType), cel.Variable("application", cel.StringType),
		cel.Variable("target.name", cel.StringType), cel.Variable("target.account", cel.StringType), cel.Variable("target.namespace", cel.StringType))
	if err != nil {
		panic(err) // nothing of it comes from outside
	}
	return env
}

// compile makes a program of an expression that begins in a scalar at a place of its value. nil: it has problems, which are reported where they stand.
func (r *reader) compile(env *cel.Env, text string, in scalar, wanted ...*cel.Type) (cel.Program, *cel.Type) {
	if strings.TrimSpace(text) == "" {
		r.fail(in.position(1, 0), in.path, "the expression is empty")
		return nil, nil
	}
	if len(text) > maxExpression {
		r.fail(in.position(1, 0), in.path, "the expression has %d bytes; at most %d are taken", len(text), maxExpression)
		return nil, nil
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			r.fail(in.position(e.Location.Line(), e.Location.Column()), in.path, "%s", plainly(e.Message))
		}
		return nil, nil
	}
	if is := ast.OutputType(); len(wanted) > 0 && !is.IsExactType(wanted[0]) && !is.IsExactType(cel.DynType) {
		r.fail(in.position(1, 0), in.path, "the expression is of the type %s; %s is wanted", cel.FormatCELType(is), cel.FormatCELType(wanted[0]))
		return nil, nil
	}
	program, err := env.Program(ast, cel.CostTracking(steps{}), cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		r.fail(in.position(1, 0), in.path, "%s", plainly(err.Error()))
		return nil, nil
	}
	return program, ast.OutputType()
}

// plainly is a message of the compiler in one line, without what only its authors need.
func plainly(text string) string {
	text = strings.Join(strings.Fields(strings.TrimPrefix(text, "Syntax error: ")), " ")
	text, _, _ = strings.Cut(text, " expecting {")
	return shorten(text)
}

// message is text with expressions in it.
type message []piece

// piece is text, or an expression whose value is shown.
type piece struct {
	text    string
	program cel.Program
}

// template reads a message: text in which {{ EXPRESSION }} stands for what it comes to.
func (r *reader) template(env *cel.Env, in scalar) message {
	var m message
	rest := in.value
	for {
		before, after, found := strings.Cut(rest, "{{")
		if !found {
			return append(m, piece{text: rest})
		}
		expression, next, closed := strings.Cut(after, "}}")
		inner := in.from(len(in.value) - len(after))
		if !closed {
			r.fail(inner.position(1, 0), in.path, "{{ is never closed by }}")
			return nil
		}
		program, _ := r.compile(env, expression, inner)
		m = append(m, piece{text: before}, piece{program: program})
		rest = next
	}
}

// maxShown is how many bytes of a message are shown.
const maxShown = 500

// fill is the message for one object. An expression that has no value there is shown as a question mark: the finding counts all the same.
func (m message) fill(facts cel.Activation) string {
	var text strings.Builder
	for _, p := range m {
		if p.program == nil {
			text.WriteString(p.text)
			continue
		}
		value, _, err := p.program.Eval(facts)
		if err == nil {
			value = value.ConvertToType(types.StringType)
		}
		if shown, ok := value.(types.String); err == nil && ok {
			text.WriteString(shorten(string(shown)))
		} else {
			text.WriteString("?")
		}
	}
	return shorten(text.String())
}

// shorten keeps a text to one line that can be shown: what is in it may come from anybody's manifests.
func shorten(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text))
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}
