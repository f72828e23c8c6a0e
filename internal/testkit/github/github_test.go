package github

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	sha   = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
	other = "aaaa09b5b57875f334f61aebed695e2e4193db5e"
)

// shop is a GitHub with one repository, whose statuses one token may write and another may read.
func shop(t testing.TB) *GitHub {
	g := New(t)
	g.Repository("acme/Shop", sha)
	g.Token("writes", "acme/shop", Rights{"statuses": "write"})
	g.Token("reads", "acme/shop", Rights{"statuses": "read"})
	return g
}

// ask sends a request as a program would, and returns the answer's status, header and text.
func ask(t testing.TB, client *http.Client, token, method, address, body string) (int, http.Header, string) {
	t.Helper()
	status, header, text, err := try(t, client, token, method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, header, text
}

func try(t testing.TB, client *http.Client, token, method, address, body string) (int, http.Header, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("User-Agent", "test")
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, string(text), err
}

const statuses = "https://api.github.test/repos/acme/shop/statuses/"

func TestWhatIsLegalIsDoneAndKept(t *testing.T) {
	t.Parallel()
	g := shop(t)
	longest := strings.Repeat("é", 140)
	for _, body := range []string{
		`{"state":"pending"}`,
		`{"state":"pending","context":"ci/Build","description":null,"target_url":null}`,
		`{"state":"success","context":"ci/build","description":"` + longest + `","target_url":"https://example.com/x"}`,
		`{"state":"error","context":"a/b/c"}`,
	} {
		if status, _, text := ask(t, g.Client(), "writes", http.MethodPost, statuses+sha, body); status != http.StatusCreated {
			t.Errorf("%s is answered with %d: %s", body, status, text)
		}
	}
	shown := g.Shown("ACME/shop", sha)
	if len(shown) != 3 || shown["default"].State != "pending" || shown["ci/build"].Description != longest || shown["ci/build"].TargetURL != "https://example.com/x" {
		t.Errorf("shown are %+v", shown)
	}
	if all := g.Statuses("acme/shop", sha); len(all) != 4 || all[1].Context != "ci/Build" || all[1].Creator != "towpath-writes" {
		t.Errorf("told were %+v", all)
	}
	status, header, text := ask(t, g.Client(), "reads", http.MethodGet, "https://x.test/repos/acme/shop/commits/"+sha+"/statuses?per_page=3", "")
	var listed []struct{ Context string }
	if err := json.Unmarshal([]byte(text), &listed); err != nil || status != http.StatusOK || len(listed) != 3 || listed[0].Context != "a/b/c" {
		t.Errorf("the newest three: %d %v %s", status, err, text)
	}
	if link := header.Get("Link"); !strings.Contains(link, `page=2&per_page=3>; rel="next"`) || !strings.Contains(link, `rel="last"`) {
		t.Errorf("Link is %s", link)
	}
	_, header, text = ask(t, g.Client(), "reads", http.MethodGet, "https://x.test/repos/acme/shop/commits/"+sha+"/statuses?per_page=3&page=2", "")
	if err := json.Unmarshal([]byte(text), &listed); err != nil || len(listed) != 1 || listed[0].Context != "default" || !strings.Contains(header.Get("Link"), `rel="prev"`) {
		t.Errorf("the one after: %v %s, Link %s", err, text, header.Get("Link"))
	}
	if _, _, text = ask(t, g.Client(), "reads", http.MethodGet, "https://x.test/repos/acme/shop/commits/"+sha+"/statuses?page=9", ""); text != "[]" {
		t.Errorf("a page beyond the last: %s", text)
	}
}

func TestWhatIsIllegalIsRefusedNamingTheField(t *testing.T) {
	t.Parallel()
	const list = "https://api.github.test/repos/acme/shop/commits/" + sha + "/statuses"
	long := strings.Repeat("x", 141)
	for name, c := range map[string]struct {
		token, method, address, body string
		status                       int
		says                         string
	}{
		"no state":                      {"writes", "POST", statuses + sha, `{}`, 422, `For 'properties/state': property "state" is missing`},
		"a state that is none":          {"writes", "POST", statuses + sha, `{"state":"done"}`, 422, "For 'properties/state': value is not one of the allowed values"},
		"a number for a text":           {"writes", "POST", statuses + sha, `{"state":"success","context":7}`, 422, "For 'properties/context': value must be a string"},
		"null for a text that is none":  {"writes", "POST", statuses + sha, `{"state":"success","context":null}`, 422, "For 'properties/context': Value is not nullable"},
		"an unknown field":              {"writes", "POST", statuses + sha, `{"state":"success","targetURL":"https://x"}`, 422, `property "targetURL" is unsupported`},
		"two mistakes":                  {"writes", "POST", statuses + sha, `{"state":"done","descripion":"x"}`, 422, `property "descripion" is unsupported`},
		"a list for an object":          {"writes", "POST", statuses + sha, `[]`, 422, "value must be an object"},
		"no JSON":                       {"writes", "POST", statuses + sha, `{"state"`, 400, "Problems parsing JSON"},
		"no body":                       {"writes", "POST", statuses + sha, ``, 422, "value is required but missing"},
		"a description of 141":          {"writes", "POST", statuses + sha, `{"state":"success","description":"` + long + `"}`, 422, `"field":"description","message":"description is too long (maximum is 140 characters)"`},
		"a context of 256":              {"writes", "POST", statuses + sha, `{"state":"success","context":"` + strings.Repeat("x", 256) + `"}`, 422, `"field":"context"`},
		"an empty context":              {"writes", "POST", statuses + sha, `{"state":"success","context":""}`, 422, "context cannot be blank"},
		"a link that is none":           {"writes", "POST", statuses + sha, `{"state":"success","target_url":"javascript:x"}`, 422, `"field":"target_url"`},
		"a commit that is not there":    {"writes", "POST", statuses + other, `{"state":"success"}`, 422, "No commit found for SHA: " + other},
		"a branch for a commit":         {"writes", "POST", statuses + "feature/x", `{"state":"success"}`, 422, "No commit found for SHA: feature/x"},
		"a repository that is not seen": {"writes", "POST", "https://x.test/repos/acme/secret/statuses/" + sha, `{"state":"success"}`, 404, "Not Found"},
		"a token that only reads":       {"reads", "POST", statuses + sha, `{"state":"success"}`, 403, "Resource not accessible"},
		"a token of nobody":             {"guessed", "POST", statuses + sha, `{"state":"success"}`, 401, "Bad credentials"},
		"no token":                      {"", "POST", statuses + sha, `{"state":"success"}`, 401, "Requires authentication"},
		"a path that is none":           {"writes", "GET", "https://x.test/repos/acme/shop/statusses", ``, 404, "Not Found"},
		"a method that is none":         {"writes", "PUT", statuses + sha, `{"state":"success"}`, 404, "Not Found"},
		"a page that is no number":      {"reads", "GET", list + "?page=two", ``, 422, "For 'page' in the query"},
		"statuses of no commit":         {"reads", "GET", "https://x.test/repos/acme/shop/commits/" + other + "/statuses", ``, 404, "Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			g := shop(t)
			status, _, text := ask(t, g.Client(), c.token, c.method, c.address, c.body)
			var refusal struct{ Message string }
			if err := json.Unmarshal([]byte(text), &refusal); err != nil || refusal.Message == "" {
				t.Errorf("the refusal has no message: %s (%v)", text, err)
			}
			if said := text + refusal.Message; status != c.status || !strings.Contains(said, c.says) {
				t.Errorf("%d %s, want %d saying %q", status, said, c.status, c.says)
			}
			if told := g.Statuses("acme/shop", sha); len(told) > 0 {
				t.Errorf("it was done all the same: %+v", told)
			}
		})
	}
}

func TestAContextIsTakenAThousandTimesAndThenNeverAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := shop(t)
		g.Repository("acme/shop", other)
		for i := range maxOfContext {
			g.Tell("acme/shop", sha, Status{Context: []string{"towpath/Shop", "towpath/shop"}[i%2], State: "pending"})
		}
		say := func(commit, context string) int {
			status, _, _ := ask(t, g.Client(), "writes", http.MethodPost, statuses+commit, `{"state":"success","context":"`+context+`"}`)
			return status
		}
		got := []int{say(sha, "TOWPATH/shop"), say(sha, "towpath/other"), say(other, "towpath/shop")}
		time.Sleep(100 * 24 * time.Hour)
		if got = append(got, say(sha, "towpath/shop")); !slices.Equal(got, []int{422, 201, 201, 422}) {
			t.Errorf("answered with %v", got)
		}
	})
}

func TestLimitsAreThoseOfGitHub(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := shop(t)
		create := func(token string) (int, http.Header) {
			status, header, _ := ask(t, g.Client(), token, http.MethodPost, statuses+sha, `{"state":"success"}`)
			return status, header
		}
		for range 80 {
			if status, _ := create("writes"); status != http.StatusCreated {
				t.Fatalf("refused with %d within the limit", status)
			}
		}
		if status, header := create("writes"); status != http.StatusForbidden || header.Get("Retry-After") != "60" || header.Get("X-RateLimit-Remaining") == "0" {
			t.Errorf("the 81st of a minute: %d %v", status, header)
		}
		g.Token("another", "acme/shop", Rights{"statuses": "write"})
		if status, _ := create("another"); status != http.StatusCreated {
			t.Errorf("another account is answered with %d", status)
		}
		time.Sleep(time.Minute)
		for created := 80; created < 500; created++ {
			time.Sleep(time.Second)
			if status, _ := create("writes"); status != http.StatusCreated {
				t.Fatalf("refused with %d after %d in an hour", status, created)
			}
		}
		time.Sleep(time.Minute)
		if status, _ := create("writes"); status != http.StatusForbidden {
			t.Errorf("the 501st of an hour: %d", status)
		}

		g.Limit(Limits{Requests: 600, CreationsAMinute: 80, CreationsAnHour: 500})
		var header http.Header
		status := http.StatusOK
		for n := 0; status == http.StatusOK && n < 1000; n++ {
			status, header, _ = ask(t, g.Client(), "writes", http.MethodGet, "https://x.test/repos/acme/shop/commits/"+sha+"/statuses", "")
		}
		if status != http.StatusForbidden || header.Get("X-RateLimit-Remaining") != "0" || header.Get("X-RateLimit-Used") != "600" || header.Get("X-RateLimit-Reset") == "" {
			t.Errorf("the 601st request of an hour: %d %v", status, header)
		}
		time.Sleep(time.Hour)
		if status, header := create("writes"); status != http.StatusCreated || header.Get("X-RateLimit-Remaining") != "599" {
			t.Errorf("an hour later: %d %v", status, header)
		}
	})
}

func TestFaultsHappenInTheirOrder(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]func(*testing.T) (*GitHub, *http.Client){
		"in the process":    func(t *testing.T) (*GitHub, *http.Client) { g := shop(t); return g, g.Client() },
		"over a connection": listening,
	} {
		t.Run(name, func(t *testing.T) {
			g, client := client(t)
			until := time.Now().Add(time.Minute)
			g.Next(Broken(502), Cut, Unanswered, TooMuch(403, 30*time.Second), TooMuch(429, 0), Exhausted(403, until), Refused(410, "Gone"), Slow(time.Millisecond))
			var got []string
			var headers []http.Header
			for range 9 {
				status, header, _, err := try(t, client, "writes", http.MethodPost, g.URL+"repos/acme/shop/statuses/"+sha, `{"state":"success"}`)
				headers = append(headers, header)
				if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Error(err)
				}
				got = append(got, fmt.Sprintf("%d/%d", status, len(g.Statuses("acme/shop", sha))))
			}
			if want := []string{"502/0", "0/0", "0/1", "403/1", "429/1", "403/1", "410/1", "201/2", "201/3"}; !slices.Equal(got, want) {
				t.Errorf("status/kept: %v, want %v", got, want)
			}
			if headers[3].Get("Retry-After") != "30" || headers[4].Get("Retry-After") != "" || headers[5].Get("X-RateLimit-Reset") != fmt.Sprint(until.Unix()) {
				t.Errorf("headers of the limits: %v", headers[3:6])
			}
			g.Always(Cut)
			for range 2 {
				if _, _, _, err := try(t, client, "writes", http.MethodPost, g.URL+"repos/acme/shop/statuses/"+sha, `{"state":"success"}`); err == nil {
					t.Error("answered, though all connections are cut")
				}
			}
			g.Always(nil)
			if status, _, _ := ask(t, client, "writes", http.MethodPost, g.URL+"repos/acme/shop/statuses/"+sha, `{"state":"success"}`); status != http.StatusCreated {
				t.Errorf("answered with %d after that", status)
			}
			if n := len(g.Requests()); n != 12 {
				t.Errorf("%d requests are remembered", n)
			}
		})
	}
}

// listening is shop over TCP. Connections are not used again: net/http repeats a request by itself when one that it kept breaks.
func listening(t *testing.T) (*GitHub, *http.Client) {
	g := Start(t)
	g.Repository("acme/Shop", sha)
	g.Token("writes", "acme/shop", Rights{"statuses": "write"})
	return g, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

func TestWhoGivesUpOnASlowAnswerLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := shop(t)
		g.Next(Slow(time.Minute))
		client := g.Client()
		client.Timeout = time.Second
		if _, _, _, err := try(t, client, "writes", http.MethodPost, statuses+sha, `{"state":"success"}`); err == nil {
			t.Error("answered")
		}
		synctest.Wait()
		if told := g.Statuses("acme/shop", sha); len(told) > 0 {
			t.Errorf("kept %v", told)
		}
	})
}

// Each answer is checked: one that GitHub never gives fails the test that got it.
func TestAnAnswerThatGitHubNeverGivesIsNoticed(t *testing.T) {
	t.Parallel()
	g := shop(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, statuses+sha, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	route, vars, err := g.description.find(r)
	if err != nil {
		t.Fatal(err)
	}
	good := g.status(g.repositories["acme/shop"], g.repositories["acme/shop"].commits[sha], Status{Context: "x", State: "success", Creator: "towpath-writes"})
	for name, c := range map[string]struct {
		change func(object) answer
		says   string
	}{
		"as it is":                 {func(o object) answer { return answer{status: 201, body: o} }, ""},
		"a field less":             {func(o object) answer { delete(o, "context"); return answer{status: 201, body: o} }, `property "context" is missing`},
		"a number for a text":      {func(o object) answer { o["state"] = 1; return answer{status: 201, body: o} }, "/state"},
		"null where none may be":   {func(o object) answer { o["context"] = nil; return answer{status: 201, body: o} }, "/context"},
		"a status of another call": {func(o object) answer { return answer{status: 200, body: o} }, "status is not supported"},
		"a refusal":                {func(object) answer { return refuse(403, "no") }, ""},
		"a refusal without words":  {func(object) answer { return answer{status: 403, body: object{"message": 1}} }, "/message"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := object{}
			for k, v := range good {
				changed[k] = v
			}
			err := g.description.checkAnswer(r, route, vars, c.change(changed))
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want one that says %q", err, c.says)
			}
		})
	}
}

// A later room finds its endpoints described, also those whose paths hold slashes.
func TestEndpointsAreFoundWhateverTheirPathsHold(t *testing.T) {
	t.Parallel()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"GET /repos/a/b/contents/deploy/web/towpath.yaml":                "repos/get-content",
		"GET /repos/a/b/git/ref/heads/feature/x":                         "git/get-ref",
		"GET /repos/a/b/compare/main...feature/x":                        "repos/compare-commits-with-basehead",
		"GET /repos/a/b/commits/feature/x":                               "repos/get-commit",
		"GET /repos/a/b/commits/feature/x/statuses":                      "repos/list-commit-statuses-for-ref",
		"GET /repos/a/b/commits/" + sha + "/check-runs":                  "checks/list-for-ref",
		"GET /repos/a/b/commits/" + sha + "/pulls":                       "repos/list-pull-requests-associated-with-commit",
		"GET /repos/a/b/tarball/feature/x":                               "repos/download-tarball-archive",
		"PATCH /repos/a/b/issues/comments/7":                             "issues/update-comment",
		"POST /repos/a/b/deployments/7/statuses":                         "repos/create-deployment-status",
		"POST /app/installations/7/access_tokens":                        "apps/create-installation-access-token",
		"GET /repos/a/b/branches/main/protection/required_status_checks": "repos/get-status-checks-protection",
		"GET /repos/a/b/rules/branches/main":                             "repos/get-branch-rules",
		"PATCH /repos/a/b/check-runs/7":                                  "checks/update",
		"POST /app/hook/deliveries/7/attempts":                           "apps/redeliver-webhook-delivery",
		"GET /orgs/acme/teams/sre/memberships/ann":                       "teams/get-membership-for-user-in-org",
		"GET /repos/a/b/collaborators/ann/permission":                    "repos/get-collaborator-permission-level",
		"POST /repos/a/b/issues/comments/7/reactions":                    "reactions/create-for-issue-comment",
		"GET /repos/a/b/pulls/7/files":                                   "pulls/list-files",
		"GET /repos/a/b/git/trees/main:deploy":                           "git/get-tree",
	} {
		method, path, _ := strings.Cut(address, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, "https://api.github.test"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		route, _, err := d.find(r)
		if err != nil {
			t.Error(err)
			continue
		}
		if route.Operation.OperationID != want {
			t.Errorf("%s is %s, want %s", address, route.Operation.OperationID, want)
		}
	}
}
