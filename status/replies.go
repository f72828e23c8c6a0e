package status

import (
	"context"
	"fmt"
	"strings"

	"towpath/reconcile/rollout"
)

// help is what can be asked for.
const help = "`/towpath VERB [TARGET|APPLICATION/TARGET|all] [--reason \"…\"]`, at the beginning of a line, up to five in a comment:\n\n" +
	"| verb | what it does | who may |\n|---|---|---|\n" +
	"| `approve`, `reject` | answers what a target of this merge waits for | who holds one of the roles that are asked for; none is: who may write here |\n" +
	"| `skip`, `retry` | passes a step over, for a reason; tries again now | the role `deployer` |\n" +
	"| `cancel [APPLICATION\\|all]` | stops what this merge started: what is under way goes back | the role `deployer` |\n" +
	"| `pause`, `resume` `[APPLICATION\\|all]` | halts the rollouts of an application, for a reason; lets them go on | the role `deployer` |\n" +
	"| `plan [COMMIT]` | plans anew; of a fork the commit is to be named, whole | who may write here |\n" +
	"| `status`, `help` | says where the targets stand; says this | who may write here |"

// mostReplies is how many answers are shown, the newest first.
const mostReplies = 5

// Sum tells what a comment says from what it said before.
func Sum(body string) string { return sum(body) }

// sign is one picture beside a comment.
type sign struct {
	comment int64
	content string
}

func (s sign) hash() string { return s.content }

func (s sign) creates(rollout.Publication) bool { return true }

func (s sign) put(ctx context.Context, f forge, at spot, shown rollout.Publication) (rollout.Publication, error) {
	shown.Hash = s.hash()
	return shown, f.React(ctx, at.repository, s.comment, s.content)
}

// find: what is put beside a comment twice is there once.
func (s sign) find(context.Context, *look, spot) (rollout.Publication, error) {
	return rollout.Publication{}, nil
}

// replies are the answers to what people asked for below a pull request: signs beside their comments, and one comment with all that signs do not say.
func replies(all []rollout.Replied, source string, at spot) (posts []post) {
	var texts []string
	for _, r := range all {
		for _, content := range r.Signs {
			posts = append(posts, post{object: fmt.Sprintf("sign %d %s", r.Comment, content), spot: at, final: true, urgent: true, spare: sparesNothing, content: sign{r.Comment, content}})
		}
		if r.Text != "" {
			texts = append([]string{r.Text}, texts...)
		}
	}
	if len(texts) == 0 {
		return posts
	}
	var body strings.Builder
	body.WriteString("### Towpath · answers\n")
	for _, text := range texts[:min(len(texts), mostReplies)] {
		if body.Len()+len(text) > maxComment {
			break
		}
		body.WriteString("\n" + text + "\n")
	}
	body.WriteString("\n<sub>`/towpath help` tells what can be asked for</sub>\n")
	c := Comment{Mark: fmt.Sprintf("<!-- towpath:reply v1 source=%s pr=%d state=", source, at.pull), Body: body.String(), state: sum(body.String()), must: true}
	return append(posts, post{object: "reply", spot: at, urgent: true, spare: sparesNothing, content: c})
}
