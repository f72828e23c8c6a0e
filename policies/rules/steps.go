package rules

import (
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// steps counts what a call costs by what it is given. The library's own count takes a call on values whose type is known only when it runs for a single step, and
// all of an object is of that sort.
type steps struct{}

// perStep is how many bytes of a text are one step.
const perStep = 10

// CallCost implements cost.ActualCostEstimator. nil: the library counts.
func (steps) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	total := uint64(1)
	switch function {
	case overloads.Matches: // the text times the pattern
		return nil
	case operators.Equals, operators.NotEquals, operators.In, operators.OldIn: // all that is in them is compared
		for _, arg := range args {
			total += whole(arg, costLimit)
		}
	default:
		for _, arg := range args {
			total += length(arg)
		}
	}
	return &total
}

// length of a text in steps; others have none.
func length(value ref.Val) uint64 {
	switch v := value.(type) {
	case types.String:
		return uint64(len(v) / perStep)
	case types.Bytes:
		return uint64(len(v) / perStep)
	}
	return 0
}

// whole is the size of a value with all that is in it, up to most and a little more.
func whole(value ref.Val, most uint64) uint64 {
	total := 1 + length(value)
	switch v := value.(type) {
	case traits.Mapper:
		for i := v.Iterator(); i.HasNext() == types.True && total <= most; {
			key := i.Next()
			total += whole(key, most-total) + whole(v.Get(key), most-total)
		}
	case traits.Lister:
		for i := v.Iterator(); i.HasNext() == types.True && total <= most; {
			total += whole(i.Next(), most-total)
		}
	}
	return total
}
