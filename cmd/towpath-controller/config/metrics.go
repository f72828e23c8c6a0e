package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// MetricProvider is a server that analysis steps ask. Its host may be private, since it stands here.
type MetricProvider struct {
	Name        string     `yaml:"name" doc:"as deployment files write it: metricProviderName" required:"true"`
	Type        string     `yaml:"type" doc:"prometheus, datadog, newRelic, or http for any server that answers with JSON" required:"true"`
	Tenants     []string   `yaml:"tenants" doc:"tenants whose deployment files may use it; absent: all"`
	URL         string     `yaml:"url" doc:"address of the server; required for prometheus and http, absent: https://api.datadoghq.com or https://api.newrelic.com/graphql. Through an agent: a path below the agent's target, or absent"`
	CAFile      string     `yaml:"caFile" doc:"certificates that are trusted beside the system's"`
	Agent       string     `yaml:"agent" doc:"agent through which it is reached: the one of that name in the tenant of the deployment; absent: the controller calls it itself"`
	AgentTarget string     `yaml:"agentTarget" doc:"entry of the agent's targets that is the server; absent: the provider's name"`
	Auth        MetricAuth `yaml:"auth" doc:"credentials for prometheus and http: a token, or username and password; absent: none"`
	Datadog     Datadog    `yaml:"datadog" doc:"credentials for datadog"`
	NewRelic    NewRelic   `yaml:"newRelic" doc:"account and credentials for newRelic"`
	HTTP        HTTPMetric `yaml:"http" doc:"what http sends and reads"`
}

// MetricAuth is how a Prometheus or an HTTP server knows the controller.
type MetricAuth struct {
	TokenFile    string `yaml:"tokenFile" doc:"file with a bearer token; read at each use"`
	Username     string `yaml:"username" doc:"name beside the password"`
	PasswordFile string `yaml:"passwordFile" doc:"file with the password; read at each use"`
}

// Datadog is the credentials for it.
type Datadog struct {
	APIKeyFile         string `yaml:"apiKeyFile" doc:"file with an API key; read at each use"`
	ApplicationKeyFile string `yaml:"applicationKeyFile" doc:"file with an application key that may query timeseries; read at each use"`
}

// NewRelic is the account, and the credentials for it.
type NewRelic struct {
	UserKeyFile string `yaml:"userKeyFile" doc:"file with a user key; read at each use"`
	AccountID   int64  `yaml:"accountId" doc:"account whose data are queried"`
}

// HTTPMetric is what is sent to a server of no known kind, and where its answer holds the number.
type HTTPMetric struct {
	Body  string `yaml:"body" doc:"JSON that is sent by POST, with {{query}}, {{start}} and {{end}} as in url; absent: a GET"`
	Value string `yaml:"value" doc:"JSON path (RFC 9535) to the number in the answer, like $.data.value"`
}

// MayUse reports whether deployment files of a tenant may use a provider.
func (p MetricProvider) MayUse(tenant string) bool {
	return len(p.Tenants) == 0 || slices.Contains(p.Tenants, tenant)
}

func checkMetrics(all []MetricProvider) (wrong []error) {
	for i, p := range all {
		at := fmt.Sprintf("metricProviders[%d]", i)
		need := func(ok bool, format string, args ...any) {
			if !ok {
				wrong = append(wrong, fmt.Errorf(at+format, args...))
			}
		}
		need(strings.TrimSpace(p.Name) != "" && len(p.Name) <= 253, ".name: must be 1 to 253 characters")
		need(!slices.ContainsFunc(all[:i], p.meets), ".name: a second provider named %s for the same tenant", p.Name)
		need(slices.Contains([]string{"prometheus", "datadog", "newRelic", "http"}, p.Type), ".type: %q is none of prometheus, datadog, newRelic, http", p.Type)
		for _, tenant := range p.Tenants {
			need(sourceName.MatchString(tenant), ".tenants: %q; letters, digits, - and _, at most 63", tenant)
		}
		known := p.Type == "datadog" || p.Type == "newRelic"
		switch {
		case p.Agent != "":
			need(p.URL == "" || strings.HasPrefix(p.URL, "/"), ".url: through an agent it is a path below the agent's target, like /prometheus, or absent")
			need(p.CAFile == "", ".caFile: the certificates of a server behind an agent stand in the agent's own configuration (targets[].ca)")
		default:
			need(p.URL != "" && isAddress(p.URL) || p.URL == "" && known, ".url: write an address like https://HOST, without user and password; those are auth")
			need(p.AgentTarget == "", ".agentTarget: agent is missing")
		}
		need(p.Auth == MetricAuth{} || !known, ".auth: is for prometheus and http; %s has keys of its own", p.Type)
		need(p.Auth.TokenFile == "" || p.Auth.Username == "" && p.Auth.PasswordFile == "", ".auth: write tokenFile, or username and passwordFile, not both")
		need((p.Auth.Username == "") == (p.Auth.PasswordFile == ""), ".auth: username and passwordFile come together")
		need((p.Type == "datadog") == (p.Datadog.APIKeyFile != "" && p.Datadog.ApplicationKeyFile != ""), ".datadog: apiKeyFile and applicationKeyFile are required for the type datadog, and for it alone")
		need((p.Type == "newRelic") == (p.NewRelic.UserKeyFile != "" && p.NewRelic.AccountID > 0), ".newRelic: userKeyFile and accountId are required for the type newRelic, and for it alone")
		need((p.Type == "http") == (p.HTTP.Value != ""), ".http: value is required for the type http, and for it alone")
		need(p.Type != "http" || strings.Contains(p.URL+p.HTTP.Body, "query"), ".http: url or body has to hold {{query}}")
	}
	return wrong
}

// meets reports whether two providers have one name in the same tenant.
func (p MetricProvider) meets(other MetricProvider) bool {
	return p.Name == other.Name && (len(p.Tenants) == 0 || len(other.Tenants) == 0 || slices.ContainsFunc(p.Tenants, other.MayUse))
}

func isAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") && u.User == nil
}
