package rules_test

import (
	"strings"
	"testing"

	"towpath/policies/rules"
)

// pods is the same pod template in a Pod, a Deployment object, a CronJob and a kind of somebody else.
func pods(spec string) []string {
	return []string{
		"{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: " + spec + "}",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {spec: " + spec + "}}}",
		"{apiVersion: batch/v1, kind: CronJob, metadata: {name: web}, spec: {jobTemplate: {spec: {template: {spec: " + spec + "}}}}}",
	}
}

const service = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}"

func TestTheLibraryRefusesWhatItSays(t *testing.T) {
	t.Parallel()
	const bounded = "resources: {limits: {memory: 1Gi}, requests: {cpu: 100m}}"
	for name, c := range map[string]struct {
		use     string
		objects []string
		says    string // "": nothing is found
	}{
		"no tag":                              {"no-latest-tag", pods("{containers: [{name: web, image: shop/web}]}"), "container web has the image shop/web, which is another one tomorrow"},
		"the tag latest":                      {"no-latest-tag", pods("{containers: [{name: web, image: 'shop/web:latest'}]}"), "has the image shop/web:latest"},
		"a port that is no tag":               {"no-latest-tag", pods("{containers: [{name: web, image: 'registry:5000/web'}]}"), "has the image registry:5000/web"},
		"no image at all":                     {"no-latest-tag", pods("{containers: [{name: web}]}"), "container web has the image ,"},
		"latest before the containers":        {"no-latest-tag", pods("{initContainers: [{name: first, image: a}], containers: [{name: web, image: 'a:1'}]}"), "container first"},
		"a tag":                               {"no-latest-tag", pods("{containers: [{name: web, image: 'registry:5000/web:1.2'}]}"), ""},
		"a tag, and all that a container has": {"no-latest-tag", pods("{containers: [{name: a, image: 'example.com/web:1', envFrom: [{configMapRef: {name: web}}], env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}]}"), ""},
		"a digest":                            {"no-latest-tag", pods("{containers: [{name: web, image: 'web@sha256:12'}, {name: b, image: 'web:latest@sha256:12'}]}"), ""},
		"no pods, no images":                  {"no-latest-tag", []string{service}, ""},
		"no limits":                           {"limits", pods("{containers: [{name: web, image: a}]}"), "container web may take a node's whole memory, or is promised no processor time; set resources.limits.memory"},
		"no limit of memory":                  {"limits", pods("{containers: [{name: web, resources: {limits: {cpu: 1}}}]}"), "container web"},
		"one container without":               {"limits", pods("{containers: [{name: a, " + bounded + "}, {name: b}]}"), "container b"},
		"limits":                              {"limits", pods("{containers: [{name: web, " + bounded + "}]}"), ""},
		"limits of both":                      {"limits", pods("{containers: [{name: web, resources: {limits: {memory: 1Gi, cpu: 1}}}]}"), ""},
		"a privileged container":              {"not-privileged", pods("{containers: [{name: web, securityContext: {privileged: true}}]}"), "container web is privileged, or may become so"},
		"one that may become privileged":      {"not-privileged", pods("{initContainers: [{name: a, securityContext: {allowPrivilegeEscalation: true}}], containers: []}"), "container a is privileged"},
		"the node's network":                  {"not-privileged", pods("{hostNetwork: true, containers: [{name: web}]}"), "hostNetwork shares the namespace of the node"},
		"a directory of the node":             {"not-privileged", pods("{volumes: [{name: root, hostPath: {path: /}}], containers: [{name: web}]}"), "volume root is a directory of the node (hostPath)"},
		"an ordinary pod":                     {"not-privileged", pods("{hostNetwork: false, volumes: [{name: v, emptyDir: {}}], containers: [{name: web, securityContext: {privileged: false}}]}"), ""},
		"a Service":                           {"not-privileged", []string{service}, ""},
		"one replica in production":           {"{rule: two-replicas-in-production, match: {targets: [prod*]}}", []string{web}, "it has 1 replicas at times, and is away whenever that pod is; set spec.replicas to 2 or more"},
		"one replica by default":              {"{rule: two-replicas-in-production, match: {targets: [prod*]}}", pods("{containers: []}")[1:2], "it has 1 replicas"},
		"an autoscaler that goes down to one": {"{rule: two-replicas-in-production, match: {targets: [prod*]}}", []string{"{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web}, spec: {maxReplicas: 5}}"}, "set spec.minReplicas to 2"},
		"two replicas":                        {"{rule: two-replicas-in-production, match: {targets: [prod*]}}", []string{strings.Replace(web, "replicas: 1", "replicas: 2", 1)}, ""},
		"one replica elsewhere":               {"{rule: two-replicas-in-production, match: {targets: [live]}}", []string{web}, ""},
		"a claim that stays":                  {"keep-volumes", []string{claim}, ""},
		"only a warning":                      {"{rule: limits, otherwise: warn}", pods("{containers: [{name: web}]}"), "container web"},
		"an exception":                        {"{rule: not-privileged, except: {namespaces: [kube-system]}}", []string{strings.Replace(pods("{hostPID: true, containers: []}")[0], "name: web", "name: web, namespace: kube-system", 1)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := set(t, head+"use: ["+c.use+"]\n")
			for _, text := range c.objects {
				o := object(t, text)
				found := s.Judge(rules.Case{Operation: rules.Apply, Object: o, Target: rules.Target{Name: "prod"}})
				switch {
				case c.says == "" && len(found) > 0:
					t.Errorf("%s: %s", o.Key, found[0].Sentence())
				case c.says != "" && (len(found) != 1 || !strings.Contains(found[0].Message, c.says)):
					t.Errorf("%s: found %+v, want %s", o.Key, found, c.says)
				}
			}
		})
	}
}

func TestTheLibraryKeepsVolumes(t *testing.T) {
	t.Parallel()
	found := set(t, head+"use: [keep-volumes]\n").Judge(rules.Case{Operation: rules.Remove, Old: object(t, claim), Target: rules.Target{Name: "prod"}})
	if len(found) != 1 || found[0].Sentence() != "rule keep-volumes (policies/pods.yaml:3 of source platform) refuses the removal of PersistentVolumeClaim shop/data from target prod "+
		"(apps/web.yaml:3): its data would go with it; keep the claim among the manifests" {
		t.Errorf("found %+v", found)
	}
}

func TestEachRuleOfTheLibraryCanBeUsed(t *testing.T) {
	t.Parallel()
	for _, name := range rules.Library() {
		if s := set(t, head+"use: [{rule: "+name+", match: {targets: ['*']}}]\n"); s.Len() != 1 {
			t.Errorf("%s makes %d rules", name, s.Len())
		}
	}
}
