package policies_test

import (
	"fmt"
	"strings"
	"testing"

	"towpath/manifest"
	"towpath/policies"
)

func object(group, kind, namespace, name string) manifest.Object {
	return manifest.Object{Key: manifest.Key{Group: group, Kind: kind, Namespace: namespace, Name: name}}
}

func TestASourceReachesOnlyWhatAnEntryNames(t *testing.T) {
	reach := []policies.Reach{
		{Accounts: []string{"staging"}, Namespaces: []string{"shop-*"}, Kinds: []string{"*"}},
		{Accounts: []string{"prod*"}, Namespaces: []string{"shop"}, Kinds: []string{"Service", "Deployment.apps"}},
		{Accounts: []string{"infra"}, Namespaces: []string{"*"}, Kinds: []string{"*"}},
	}
	for name, c := range map[string]struct {
		account string
		object  manifest.Object
		allowed bool
	}{
		"a namespace that matches":             {"staging", object("apps", "Deployment", "shop-web", "web"), true},
		"a namespace that does not":            {"staging", object("apps", "Deployment", "shop", "web"), false},
		"an account of a pattern":              {"prod-eu", object("", "Service", "shop", "web"), true},
		"a kind with its group":                {"prod-eu", object("apps", "Deployment", "shop", "web"), true},
		"the same kind of another group":       {"prod-eu", object("example.com", "Deployment", "shop", "web"), false},
		"a kind that is not named":             {"prod-eu", object("", "Secret", "shop", "web"), false},
		"an account nobody names":              {"other", object("", "Service", "shop", "web"), false},
		"a cluster-wide object where all may":  {"infra", object("", "Namespace", "", "shop"), true},
		"a cluster-wide object where some may": {"staging", object("", "Namespace", "", "shop-web"), false},
	} {
		t.Run(name, func(t *testing.T) {
			refused := policies.Objects(reach, "shop", c.account, []manifest.Object{c.object})
			if (len(refused) == 0) != c.allowed {
				t.Errorf("refused: %q, want allowed %v", refused, c.allowed)
			}
			if !c.allowed && !strings.HasPrefix(refused[0], fmt.Sprintf("source shop may not deploy %s to account %s", c.object.Key, c.account)) {
				t.Errorf("the refusal does not name source, object and account: %s", refused[0])
			}
		})
	}
}

func TestWithoutEntriesASourceReachesNothing(t *testing.T) {
	if policies.Account(nil, "staging") || len(policies.Objects(nil, "shop", "staging", []manifest.Object{object("", "Service", "shop", "web")})) != 1 {
		t.Error("a source without allow reached something")
	}
}

func TestManyRefusalsAreCounted(t *testing.T) {
	objects := make([]manifest.Object, 25)
	for i := range objects {
		objects[i] = object("", "Service", "shop", fmt.Sprint("web-", i))
	}
	refused := policies.Objects(nil, "shop", "staging", objects)
	if len(refused) != 11 || refused[10] != "and 15 more objects that source shop may not deploy to account staging" {
		t.Errorf("got %d sentences, the last: %s", len(refused), refused[len(refused)-1])
	}
}
