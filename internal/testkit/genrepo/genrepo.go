// Package genrepo makes a deterministic, realistic monorepo of deployments: thousands of applications (Kustomize, Helm, plain YAML), a history of small commits, and at
// its end two commits that touch what many applications share. Benchmarks run on it, and tests over its whole history. It needs the git command alone.
package genrepo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"sort"
	"strings"
)

// Options say what to make. The same options give the same commit ids.
type Options struct {
	Apps       int    // default 5,000: about 62,000 files
	Commits    int    // after the first, each changing 1-3 applications; default 200
	Seed       uint64 // default 1
	Branch     string // default "main"
	DeployFile string // name of each application's deployment file; default "deploy.yaml", "-" is none
	Ballast    int    // MB of incompressible files of 1 MB each under docs/assets
	NoHPA      bool   // no HorizontalPodAutoscalers
}

// Index lists what was made.
type Index struct {
	Files        int      `json:"files"`
	Apps         []App    `json:"apps"`
	Commits      []Commit `json:"commits"`
	Environments []string `json:"environments"`
}

// App is one application. Its targets are the environments.
type App struct {
	Name string `json:"name"`
	Team string `json:"team"`
	Kind string `json:"kind"` // kustomize, helm-own, helm-shared, plain
	Dir  string `json:"dir"`
}

// Commit is one commit of the branch.
type Commit struct {
	N     int      `json:"n"` // 0 is the root commit
	Kind  string   `json:"kind"`
	Apps  []string `json:"apps,omitempty"`
	Paths []string `json:"paths,omitempty"` // left out when they are more than a hundred
}

// Write makes a bare repository at out, which must not exist.
func Write(ctx context.Context, out string, o Options) (Index, error) {
	o = o.orDefaults()
	if _, err := os.Lstat(out); err == nil {
		return Index{}, fmt.Errorf("%s exists already", out)
	}
	if err := git(ctx, "init", "-q", "--bare", "--initial-branch="+o.Branch, out); err != nil {
		return Index{}, err
	}
	load := command(ctx, "-C", out, "fast-import", "--quiet", "--force")
	pipe, err := load.StdinPipe()
	if err != nil {
		return Index{}, err
	}
	if err := load.Start(); err != nil {
		return Index{}, err
	}
	w := bufio.NewWriterSize(pipe, 1<<20)
	index := generate(w, o)
	if err := errors.Join(w.Flush(), pipe.Close(), load.Wait()); err != nil {
		return Index{}, err
	}
	for _, args := range [][]string{
		{"-c", "pack.threads=1", "repack", "-adfq"},
		{"update-server-info"},
		{"config", "uploadpack.allowAnySHA1InWant", "true"},
		{"config", "uploadpack.allowFilter", "true"},
	} {
		if err := git(ctx, append([]string{"-C", out}, args...)...); err != nil {
			return Index{}, err
		}
	}
	return index, nil
}

func (o Options) orDefaults() Options {
	if o.Apps == 0 {
		o.Apps = 5000
	}
	if o.Commits == 0 {
		o.Commits = 200
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Branch == "" {
		o.Branch = "main"
	}
	switch o.DeployFile {
	case "":
		o.DeployFile = "deploy.yaml"
	case "-":
		o.DeployFile = ""
	}
	return o
}

// command is git with no configuration but the repository's own.
func command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "git", args...)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	return c
}

func git(ctx context.Context, args ...string) error {
	if err := command(ctx, args...).Run(); err != nil {
		return fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Kind of an app's sources.
const (
	kindKustomize   = "kustomize"   // base + three overlays
	kindHelmOwn     = "helm-own"    // a chart of its own + values per environment
	kindHelmShared  = "helm-shared" // shared/charts/service + values per environment
	kindPlain       = "plain"       // a directory of YAML per environment
	sharedBase      = "shared/base" // every kustomize app's base includes it
	sharedComponent = "shared/components/observability"
	sharedChart     = "shared/charts/service"
	sharedValues    = "shared/values/common.yaml"
)

type app struct {
	App
	idx      int
	hpa      bool
	tag      map[string]int // environment -> image revision
	replicas map[string]int
	cfg      int // revision of its configuration
	base     int // revision of what all its environments share
}

type shared struct{ base, chart, component, values int }

// environments are the targets of every application, in their order.
func environments() []string { return []string{"dev", "staging", "prod"} }

// generate writes the fast-import stream.
func generate(w io.Writer, o Options) Index {
	rng := rand.New(rand.NewPCG(o.Seed, 0x70777061746821))
	envs := environments()
	apps := makeApps(rng, o.Apps, !o.NoHPA)
	sh := &shared{}
	cur := map[string]string{} // path -> content
	all := func() map[string]string {
		m := sharedFiles(sh)
		for _, a := range apps {
			for p, c := range appFiles(a, o.DeployFile) {
				m[p] = c
			}
		}
		big := rand.NewChaCha8([32]byte{byte(o.Seed)})
		for i := range o.Ballast {
			buf := make([]byte, 1<<20)
			big.Read(buf)
			m[fmt.Sprintf("docs/assets/%04d.bin", i)] = string(buf)
		}
		return m
	}
	index := Index{Environments: envs}
	clock := int64(1700000000)
	commit := func(kind, msg string, want map[string]string, names []string) {
		var paths []string
		for p, c := range want {
			if old, ok := cur[p]; !ok || old != c {
				paths = append(paths, p)
			}
		}
		sort.Strings(paths)
		clock += 600
		fmt.Fprintf(w, "commit refs/heads/%s\ncommitter genrepo <genrepo@example.com> %d +0000\ndata %d\n%s\n", o.Branch, clock, len(msg), msg)
		for _, p := range paths {
			fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", p, len(want[p]), want[p])
			cur[p] = want[p]
		}
		ci := Commit{N: len(index.Commits), Kind: kind, Apps: names}
		if len(paths) <= 100 {
			ci.Paths = paths
		}
		index.Commits = append(index.Commits, ci)
	}
	commit("root", "Import all apps", all(), nil)
	for range o.Commits {
		want := map[string]string{}
		var names []string
		kind := ""
		for n := 1 + rng.IntN(3); n > 0; n-- {
			a := apps[rng.IntN(len(apps))]
			env := envs[rng.IntN(3)]
			switch x := rng.IntN(10); {
			case x < 6:
				a.tag[env]++
				kind = "image"
			case x < 8:
				a.replicas[env]++
				kind = "replicas"
			case x < 9:
				a.cfg++
				kind = "config"
			default:
				a.base++
				kind = "base"
			}
			names = append(names, a.Name)
			for p, c := range appFiles(a, o.DeployFile) {
				want[p] = c
			}
		}
		commit(kind, fmt.Sprintf("Change %s of %s", kind, strings.Join(names, ", ")), want, names)
	}
	sh.base++
	commit("shared-base", "Change the base that every kustomize app includes", sharedFiles(sh), nil)
	sh.chart++
	commit("shared-chart", "Change the chart that many helm apps use", sharedFiles(sh), nil)
	fmt.Fprintln(w, "done")
	index.Files = len(cur)
	for _, a := range apps {
		index.Apps = append(index.Apps, a.App)
	}
	return index
}

func makeApps(rng *rand.Rand, n int, hpa bool) []*app {
	a1 := []string{"amber", "brisk", "calm", "dusty", "early", "fuzzy", "grand", "happy", "inner", "jolly", "keen", "lunar", "misty", "noble", "outer", "plain", "quiet", "rapid", "solar", "tidal"}
	a2 := []string{"api", "auth", "billing", "cart", "catalog", "checkout", "ledger", "mailer", "orders", "portal", "pricing", "search", "session", "stream", "worker"}
	teams := max(1, n/100)
	apps := make([]*app, n)
	for i := range apps {
		a := &app{idx: i, hpa: hpa, tag: map[string]int{}, replicas: map[string]int{}}
		a.Team = fmt.Sprintf("team-%02d", rng.IntN(teams))
		a.Name = fmt.Sprintf("%s-%s-%04d", a1[rng.IntN(len(a1))], a2[rng.IntN(len(a2))], i)
		switch x := rng.IntN(1000); {
		case x < 600:
			a.Kind = kindKustomize
		case x < 775:
			a.Kind = kindHelmShared
		case x < 850:
			a.Kind = kindHelmOwn
		default:
			a.Kind = kindPlain
		}
		a.Dir = path.Join("apps", a.Team, a.Name)
		for j, e := range environments() {
			a.tag[e] = 10 + rng.IntN(80)
			a.replicas[e] = 1 + j + rng.IntN(2)
		}
		apps[i] = a
	}
	return apps
}

// roll is a stable number of an app, so that a choice never depends on order.
func roll(a *app, salt string, n int) int {
	h := fnv.New32a()
	fmt.Fprintf(h, "%d/%s", a.idx, salt)
	return int(h.Sum32()>>3) % n
}

func image(a *app) string { return "registry.example.com/" + a.Team + "/" + a.Name }

func sha(a *app, env string) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", a.Name, env, a.tag[env])
	return fmt.Sprintf("1.%d.%d-%012x", a.tag[env]/10, a.tag[env]%10, h.Sum64()>>16)
}

func appFiles(a *app, deployFile string) map[string]string {
	m := map[string]string{}
	put := func(p, c string) { m[path.Join(a.Dir, p)] = c }
	switch a.Kind {
	case kindKustomize:
		kustomizeApp(a, put)
	case kindHelmShared, kindHelmOwn:
		helmApp(a, put)
	default:
		for _, e := range environments() {
			dep := serviceAccount(a) + "---\n" + deployment(a, e, image(a)+":"+sha(a, e), a.replicas[e])
			cm := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n%s", a.Name, indent(properties(a, e, ": "), 2))
			if roll(a, "onefile", 2) == 0 {
				put(e+"/all.yaml", cm+"---\n"+service(a)+"---\n"+dep)
				continue
			}
			put(e+"/deployment.yaml", dep)
			put(e+"/service.yaml", service(a))
			put(e+"/configmap.yaml", cm)
			if roll(a, "cron", 2) == 0 {
				put(e+"/cronjob.yaml", cronjob(a))
			}
		}
	}
	if deployFile != "" {
		put(deployFile, deployYAML(a))
	}
	return m
}

func deployYAML(a *app) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: v1\nkind: kubernetes\napplication: %s\ntargets:\n", a.Name)
	for i, e := range environments() {
		fmt.Fprintf(&b, "  %s:\n    account: %s-cluster\n    namespace: %s\n    strategy: rolling\n", e, e, a.Team)
		if i > 0 {
			fmt.Fprintf(&b, "    constraints:\n      dependsOn: [%s]\n", environments()[i-1])
		}
	}
	b.WriteString("manifests:\n")
	for _, e := range environments() {
		switch a.Kind {
		case kindKustomize:
			fmt.Fprintf(&b, "  - kustomize:\n      path: overlays/%s\n    targets: [%s]\n", e, e)
		case kindHelmShared:
			fmt.Fprintf(&b, "  - helm:\n      path: ../../../%s\n      releaseName: %s\n      valueFiles: [../../../%s, values.yaml, values-%s.yaml]\n    targets: [%s]\n", sharedChart, a.Name, sharedValues, e, e)
		case kindHelmOwn:
			fmt.Fprintf(&b, "  - helm:\n      path: chart\n      releaseName: %s\n      valueFiles: [values-%s.yaml]\n    targets: [%s]\n", a.Name, e, e)
		default:
			fmt.Fprintf(&b, "  - path: %s\n    targets: [%s]\n", e, e)
		}
	}
	b.WriteString("strategies:\n  rolling:\n    canary:\n      steps:\n        - setWeight:\n            weight: 100\n")
	return b.String()
}

func properties(a *app, env, sep string) string {
	var b strings.Builder
	n := 6 + roll(a, "props", 14)
	quote := sep == ": "
	for i := 0; i < n; i++ {
		v := fmt.Sprintf("%s-%s-%d", env, a.Name, (i*7919+a.cfg)%1000)
		if quote {
			v = `"` + v + `"`
		}
		fmt.Fprintf(&b, "SETTING_%02d%s%s\n", i, sep, v)
	}
	return b.String()
}

func indent(s string, n int) string {
	pad := strings.Repeat(" ", n)
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	return pad + strings.Join(lines, "\n"+pad) + "\n"
}

func kustomizeApp(a *app, put func(p, c string)) {
	up := "../../../../" // from the base to the root
	res := []string{"deployment.yaml", "service.yaml"}
	put("base/deployment.yaml", serviceAccount(a)+"---\n"+deployment(a, "", image(a), 1)) // two documents
	put("base/service.yaml", service(a))
	if a.hpa {
		res = append(res, "hpa.yaml")
		put("base/hpa.yaml", hpa(a))
	}
	if roll(a, "ingress", 2) == 0 {
		res = append(res, "ingress.yaml")
		put("base/ingress.yaml", ingress(a))
	}
	if roll(a, "pdb", 2) == 0 {
		res = append(res, "pdb.yaml")
		put("base/pdb.yaml", fmt.Sprintf("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: %s\nspec:\n  maxUnavailable: 1\n  selector:\n    matchLabels:\n      app: %s\n", a.Name, a.Name))
	}
	if roll(a, "cron", 4) == 0 {
		res = append(res, "cronjob.yaml")
		put("base/cronjob.yaml", cronjob(a))
	}
	res = append(res, up+sharedBase)
	put("base/app.properties", properties(a, "base", "="))
	put("base/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - "+strings.Join(res, "\n  - ")+
		"\nlabels:\n  - pairs:\n      app: "+a.Name+"\n      team: "+a.Team+"\n    includeSelectors: true\nconfigMapGenerator:\n  - name: "+a.Name+"-config\n    files:\n      - app.properties\n"+
		// What all share becomes each one's own: an object of a namespace has one owner.
		"patches:\n"+renamed("NetworkPolicy", a.Name)+renamed("LimitRange", a.Name))
	for i, e := range environments() {
		d := "overlays/" + e + "/"
		patch := fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %s
spec:
  replicas: %d
  template:
    spec:
      containers:
        - name: app
          env:
            - name: ENVIRONMENT
              value: %s
          envFrom:
            - configMapRef:
                name: %s-env
          resources:
            requests:
              cpu: %dm
              memory: %dMi
`, a.Name, a.replicas[e], e, a.Name, 50*(i+1), 64*(i+1))
		patches, config := "patches:\n  - path: patch-deployment.yaml\n", "    envs:\n      - config.env\n"
		if e == "dev" { // everything in one file, as many people write it
			patches = "patches:\n  - patch: |-\n" + indent(patch, 6)
			config = "    literals:\n      - " + strings.Join(strings.Fields(properties(a, e, "=")), "\n      - ") + "\n"
		} else {
			put(d+"patch-deployment.yaml", patch)
			put(d+"config.env", properties(a, e, "="))
		}
		if e == "prod" && a.hpa {
			put(d+"patch-hpa.yaml", fmt.Sprintf("- op: replace\n  path: /spec/maxReplicas\n  value: %d\n", 10+roll(a, "max", 20)))
			patches += "  - path: patch-hpa.yaml\n    target:\n      kind: HorizontalPodAutoscaler\n      name: " + a.Name + "\n"
		}
		comp := ""
		if roll(a, "component", 3) == 0 {
			comp = "components:\n  - ../../../../../" + sharedComponent + "\n"
		}
		put(d+"kustomization.yaml", fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources:\n  - ../../base\n%s%simages:\n  - name: %s\n    newTag: %s\nconfigMapGenerator:\n  - name: %s-env\n%s",
			a.Team, comp, patches, image(a), sha(a, e), a.Name, config))
	}
}

func deployment(a *app, env, img string, replicas int) string {
	e := ""
	if env != "" {
		e = fmt.Sprintf("            - name: ENVIRONMENT\n              value: %s\n", env)
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  labels:
    app: %[1]s
  annotations:
    example.com/revision: "%[4]d"
spec:
  replicas: %[3]d
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      app: %[1]s
  template:
    metadata:
      labels:
        app: %[1]s
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "9090"
    spec:
      serviceAccountName: %[1]s
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
      containers:
        - name: app
          image: %[2]s
          imagePullPolicy: IfNotPresent
          ports:
            - name: http
              containerPort: 8080
            - name: metrics
              containerPort: 9090
          env:
            - name: LOG_LEVEL
              value: info
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
%[5]s          resources:
            requests:
              cpu: 100m
              memory: 128Mi
            limits:
              memory: 512Mi
          readinessProbe:
            httpGet:
              path: /ready
              port: http
            periodSeconds: 5
          livenessProbe:
            httpGet:
              path: /healthz
              port: http
            initialDelaySeconds: 10
          volumeMounts:
            - name: tmp
              mountPath: /tmp
        - name: proxy
          image: registry.example.com/platform/proxy:2.4.1
          args: ["--upstream", "127.0.0.1:8080", "--listen", ":8443"]
          ports:
            - name: https
              containerPort: 8443
      volumes:
        - name: tmp
          emptyDir: {}
`, a.Name, img, replicas, a.base, e)
}

func serviceAccount(a *app) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: %s\n", a.Name)
}

// renamed is a kustomize patch that gives objects of a kind a name.
func renamed(kind, name string) string {
	return fmt.Sprintf("  - target:\n      kind: %s\n    patch: |-\n      - op: replace\n        path: /metadata/name\n        value: %s\n", kind, name)
}

func service(a *app) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %[1]s\n  labels:\n    app: %[1]s\nspec:\n  selector:\n    app: %[1]s\n  ports:\n    - name: http\n      port: 80\n      targetPort: http\n    - name: metrics\n      port: 9090\n      targetPort: metrics\n", a.Name)
}

func hpa(a *app) string {
	return fmt.Sprintf("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: %[1]s\nspec:\n  scaleTargetRef:\n    apiVersion: apps/v1\n    kind: Deployment\n    name: %[1]s\n  minReplicas: 1\n  maxReplicas: 5\n  metrics:\n    - type: Resource\n      resource:\n        name: cpu\n        target:\n          type: Utilization\n          averageUtilization: 70\n", a.Name)
}

func ingress(a *app) string {
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: %[1]s\n  annotations:\n    cert-manager.io/cluster-issuer: letsencrypt\nspec:\n  ingressClassName: nginx\n  tls:\n    - hosts: [%[1]s.example.com]\n      secretName: %[1]s-tls\n  rules:\n    - host: %[1]s.example.com\n      http:\n        paths:\n          - path: /\n            pathType: Prefix\n            backend:\n              service:\n                name: %[1]s\n                port:\n                  name: http\n", a.Name)
}

func cronjob(a *app) string {
	return fmt.Sprintf("apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: %[1]s-cleanup\nspec:\n  schedule: \"%[2]d 3 * * *\"\n  concurrencyPolicy: Forbid\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          restartPolicy: Never\n          containers:\n            - name: cleanup\n              image: registry.example.com/platform/cleanup:1.0.3\n              args: [\"--app\", \"%[1]s\"]\n", a.Name, roll(a, "minute", 60))
}

func helmApp(a *app, put func(p, c string)) {
	values := func(e string) string {
		return fmt.Sprintf("replicaCount: %d\nimage:\n  tag: %s\nenvironment: %s\nconfig:\n%s", a.replicas[e], sha(a, e), e, indent(properties(a, e, ": "), 2))
	}
	common := fmt.Sprintf("team: %s\nnameOverride: %s\nimage:\n  repository: %s\nservice:\n  port: 80\ningress:\n  enabled: %v\n  host: %s.example.com\nautoscaling:\n  enabled: %v\n  maxReplicas: %d\nrevision: \"%d\"\n",
		a.Team, a.Name, image(a), roll(a, "ingress", 2) == 0, a.Name, a.hpa && roll(a, "hpa", 2) == 0, 4+roll(a, "max", 10), a.base)
	if a.Kind == kindHelmShared {
		put("values.yaml", common)
		for _, e := range environments() {
			put("values-"+e+".yaml", values(e))
		}
		return
	}
	for p, c := range chartFiles(a.Name, "0.1."+fmt.Sprint(a.base), 0) {
		put("chart/"+p, c)
	}
	put("chart/values.yaml", chartValues+common)
	for _, e := range environments() {
		put("values-"+e+".yaml", values(e))
	}
}

func sharedFiles(s *shared) map[string]string {
	m := map[string]string{
		sharedBase + "/kustomization.yaml":      "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - networkpolicy.yaml\n  - limitrange.yaml\n",
		sharedBase + "/networkpolicy.yaml":      fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: default\n  annotations:\n    example.com/revision: \"%d\"\nspec:\n  podSelector: {}\n  policyTypes: [Ingress]\n  ingress:\n    - ports:\n        - port: 8443\n        - port: 9090\n", s.base),
		sharedBase + "/limitrange.yaml":         "apiVersion: v1\nkind: LimitRange\nmetadata:\n  name: defaults\nspec:\n  limits:\n    - type: Container\n      default:\n        memory: 512Mi\n      defaultRequest:\n        cpu: 50m\n",
		sharedComponent + "/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n  - path: patch.yaml\n    target:\n      kind: Deployment\n",
		sharedComponent + "/patch.yaml":         fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: any\nspec:\n  template:\n    metadata:\n      annotations:\n        example.com/tracing: \"v%d\"\n", s.component),
		sharedValues:                            fmt.Sprintf("region: eu-1\npodAnnotations:\n  prometheus.io/scrape: \"true\"\ncommonRevision: \"%d\"\n", s.values),
		"README.md":                             "# Config repository\n\nGenerated.\n",
		"docs/onboarding.md":                    "# Onboarding\n\nCopy an app, change its name.\n",
		".github/CODEOWNERS":                    "* @platform\n",
	}
	for p, c := range chartFiles("service", "1.4."+fmt.Sprint(s.chart), s.chart) {
		m[sharedChart+"/"+p] = c
	}
	m[sharedChart+"/values.yaml"] = chartValues + "service:\n  port: 80\n"
	return m
}

const chartValues = `replicaCount: 1
region: none
environment: none
image:
  repository: registry.example.com/none
  pullPolicy: IfNotPresent
  tag: ""
serviceAccount:
  create: true
podAnnotations: {}
resources:
  requests:
    cpu: 100m
    memory: 128Mi
  limits:
    memory: 512Mi
config: {}
`

func chartFiles(name, version string, rev int) map[string]string {
	r := strings.NewReplacer("CHART", name, "VERSION", version, "REV", fmt.Sprint(rev))
	m := map[string]string{}
	for p, c := range chartTemplates {
		m[p] = r.Replace(c)
	}
	return m
}

var chartTemplates = map[string]string{
	"Chart.yaml":  "apiVersion: v2\nname: CHART\ndescription: A service\ntype: application\nversion: VERSION\nappVersion: \"1.0\"\n",
	".helmignore": "# as helm create writes it\n.DS_Store\n.git/\n.gitignore\n*.swp\n*.bak\n*.tmp\n*.orig\n*~\n.idea/\n*.tmproj\n.vscode/\n",
	"templates/_helpers.tpl": `{{- define "CHART.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- define "CHART.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}
{{- define "CHART.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "CHART.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
example.com/revision: "REV"
{{- end }}
{{- define "CHART.selectorLabels" -}}
app.kubernetes.io/name: {{ include "CHART.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
`,
	"templates/deployment.yaml": `apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "CHART.fullname" . }}
  labels:
    {{- include "CHART.labels" . | nindent 4 }}
spec:
  {{- if not (dig "enabled" false (.Values.autoscaling | default dict)) }}
  replicas: {{ .Values.replicaCount }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "CHART.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      annotations:
        checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
        {{- with .Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      labels:
        {{- include "CHART.selectorLabels" . | nindent 8 }}
    spec:
      serviceAccountName: {{ include "CHART.fullname" . }}
      containers:
        - name: {{ .Chart.Name }}
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          env:
            - name: REGION
              value: {{ .Values.region | quote }}
            - name: ENVIRONMENT
              value: {{ .Values.environment | quote }}
          envFrom:
            - configMapRef:
                name: {{ include "CHART.fullname" . }}
          ports:
            - name: http
              containerPort: 8080
          livenessProbe:
            httpGet:
              path: /healthz
              port: http
          readinessProbe:
            httpGet:
              path: /ready
              port: http
          resources:
            {{- toYaml .Values.resources | nindent 12 }}
`,
	"templates/configmap.yaml": `apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "CHART.fullname" . }}
  labels:
    {{- include "CHART.labels" . | nindent 4 }}
data:
  {{- range $k, $v := .Values.config }}
  {{ $k }}: {{ $v | quote }}
  {{- end }}
`,
	"templates/service.yaml": `apiVersion: v1
kind: Service
metadata:
  name: {{ include "CHART.fullname" . }}
  labels:
    {{- include "CHART.labels" . | nindent 4 }}
spec:
  ports:
    - port: {{ .Values.service.port }}
      targetPort: http
      name: http
  selector:
    {{- include "CHART.selectorLabels" . | nindent 4 }}
`,
	"templates/serviceaccount.yaml": `{{- if .Values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "CHART.fullname" . }}
  labels:
    {{- include "CHART.labels" . | nindent 4 }}
{{- end }}
`,
	"templates/ingress.yaml": `{{- if dig "enabled" false (.Values.ingress | default dict) -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ include "CHART.fullname" . }}
  labels:
    {{- include "CHART.labels" . | nindent 4 }}
spec:
  rules:
    - host: {{ .Values.ingress.host | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ include "CHART.fullname" . }}
                port:
                  name: http
{{- end }}
`,
	"templates/hpa.yaml": `{{- if dig "enabled" false (.Values.autoscaling | default dict) }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "CHART.fullname" . }}
  labels:
    {{- include "CHART.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "CHART.fullname" . }}
  minReplicas: {{ .Values.replicaCount }}
  maxReplicas: {{ .Values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 70
{{- end }}
`,
	"templates/NOTES.txt": "{{ include \"CHART.fullname\" . }} is deployed.\n",
	"templates/tests/test-connection.yaml": `apiVersion: v1
kind: Pod
metadata:
  name: "{{ include "CHART.fullname" . }}-test"
  annotations:
    "helm.sh/hook": test
spec:
  containers:
    - name: wget
      image: busybox:1.36
      command: ['wget']
      args: ['{{ include "CHART.fullname" . }}:{{ .Values.service.port }}']
  restartPolicy: Never
`,
}
