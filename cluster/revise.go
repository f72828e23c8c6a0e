package cluster

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"towpath/cluster/traffic"
	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// Labels and annotations on what we apply. Names of applications and targets are free text, so labels hold a hash or a readable form, and annotations
// hold the names.
const (
	LabelLane     = "towpath.dev/lane"     // whose it is: a hash of tenant, application, target and account
	LabelWorkload = "towpath.dev/workload" // of a managed ReplicaSet: a hash of its Deployment object's name
	LabelHash     = "pod-template-hash"    // the one key that Kubernetes itself ignores when a Deployment object adopts ReplicaSets

	AnnotationTenant      = "towpath.dev/tenant"
	AnnotationApplication = "towpath.dev/application"
	AnnotationTarget      = "towpath.dev/target"
	AnnotationWorkload    = "towpath.dev/workload" // name of the Deployment object
	AnnotationNumber      = "towpath.dev/number"   // of the deployment that made the revision
	AnnotationCommit      = "towpath.dev/commit"   // of that deployment; not there for an upload
	AnnotationHook        = "towpath.dev/hook"     // of a hook: the deployment and the event that it was made for
	AnnotationCopyOf      = "towpath.dev/copy-of"  // of a configuration copy: the name that it was copied from
)

// Reviser turns a target's manifests into what is applied. Its key makes the hashes in names tell nothing about the secrets they depend on; another
// key gives every revision another name. Safe for concurrent use.
type Reviser struct{ Key []byte }

// Revised is a target's manifests as they are applied.
type Revised struct {
	Plain     []manifest.Object // all but Deployment objects, with our labels
	Revisions []Revision        // one for each Deployment object
}

// Revision is a Deployment object as a managed ReplicaSet and its configuration.
type Revision struct {
	Workload   manifest.Key
	ReplicaSet manifest.Object   // without replicas
	Copies     []manifest.Object // immutable copies of the ConfigMaps and Secrets that its pods read, to be owned by the ReplicaSet
	Replicas   *int32            // nil: the manifest does not say
}

// Names is what the manifests are called once they are applied. It depends on nothing but them and the key, so it may be remembered by their digest.
func (r Reviser) Names(objects []manifest.Object) (rollout.Set, error) {
	set := rollout.Set{Hooks: rollout.HooksFrom(objects)}
	objects = kept(objects)
	configuration := configurationOf(objects)
	for _, o := range objects {
		set.Objects = append(set.Objects, o.Key)
		if !isDeployment(o) {
			continue
		}
		w, err := r.workload(o, configuration)
		if err != nil {
			return set, err
		}
		set.Revisions = append(set.Revisions, rollout.Revision{Workload: o.Key, ReplicaSet: w.key(), Hash: w.hash, Labels: podLabels(w.template), Replicas: w.replicas})
		for _, ref := range w.reads {
			if key := configuration[ref.key(o.Namespace)].Key; !slices.Contains(set.Configuration, key) {
				set.Configuration = append(set.Configuration, key)
			}
		}
	}
	set.Services, set.Scalers = services(objects), scalers(objects)
	var err error
	set.Fleets, err = fleets(objects)
	return set, err
}

// kept is the objects but for hooks.
func kept(objects []manifest.Object) []manifest.Object {
	if !slices.ContainsFunc(objects, manifest.Object.IsHook) {
		return objects
	}
	return slices.DeleteFunc(slices.Clone(objects), manifest.Object.IsHook)
}

// services is what the Services among objects select.
func services(objects []manifest.Object) []rollout.Service {
	var all []rollout.Service
	for _, o := range objects {
		if o.Group != "" || o.Kind != "Service" {
			continue
		}
		service := rollout.Service{Key: o.Key, Selector: map[string]string{}}
		for name, value := range manifest.Child(o.Map(), "spec", "selector") {
			service.Selector[name] = fmt.Sprint(value)
		}
		all = append(all, service)
	}
	return all
}

func podLabels(template map[string]any) map[string]string {
	labels := map[string]string{}
	for name, value := range manifest.Child(template, "metadata", "labels") {
		labels[name] = fmt.Sprint(value)
	}
	return labels
}

// LaneLabel is the value of LabelLane for a target.
func LaneLabel(id rollout.Identity) string {
	return short(nil, id.Tenant, id.Application, id.Target, id.Account)
}

// short is a hash of texts that fits names and labels: 16 letters and digits.
func short(seed []byte, texts ...string) string {
	sum := sha256.New()
	sum.Write(seed)
	for _, text := range texts {
		fmt.Fprintf(sum, "%d:%s", len(text), text)
	}
	return encode(sum.Sum(nil), 16)
}

func encode(sum []byte, letters int) string {
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum))[:letters]
}

// Revise makes each Deployment object a ReplicaSet with a name that depends on the Deployment object's name, its pod template and the configuration that
// the template reads, and nothing else: the same manifests give the same name. An object that cannot be carried is an error that names it.
func (r Reviser) Revise(id rollout.Identity, objects []manifest.Object) (Revised, error) {
	var revised Revised
	objects = kept(objects)
	configuration := configurationOf(objects)
	for _, o := range objects {
		if !isDeployment(o) {
			fields := o.Map()
			if o.Group == "" && o.Kind == "Secret" {
				encodeStrings(fields)
			}
			plain, err := manifest.FromMap(owned(fields, id), o.Source)
			if err != nil {
				return revised, err
			}
			revised.Plain = append(revised.Plain, plain)
			continue
		}
		revision, err := r.revision(id, o, configuration)
		if err != nil {
			return revised, err
		}
		revised.Revisions = append(revised.Revisions, revision)
	}
	return revised, Unsupported(objects)
}

func isDeployment(o manifest.Object) bool { return o.Group == "apps" && o.Kind == "Deployment" }

// configurationOf is the ConfigMaps and Secrets among objects.
func configurationOf(objects []manifest.Object) map[manifest.Key]manifest.Object {
	found := map[manifest.Key]manifest.Object{}
	for _, o := range objects {
		if o.Group == "" && (o.Kind == "ConfigMap" || o.Kind == "Secret") {
			found[o.Key] = o
		}
	}
	return found
}

// Unsupported is an error for objects that ask for what this version cannot do yet.
func Unsupported(objects []manifest.Object) error {
	for _, o := range objects {
		if !bytes.Contains(o.JSON, []byte(`argetRef"`)) && !bytes.Contains(o.JSON, []byte(`"paused"`)) {
			continue // most objects; reading each would cost more than all the rest
		}
		fields := o.Map()
		if isDeployment(o) {
			if manifest.Child(fields, "spec")["paused"] == true {
				return fmt.Errorf("%s: not yet supported: %s, which is paused; leave spec.paused out and pause in the target's strategy", o.Source, o.Key)
			}
			continue
		}
		if isScaler(o) {
			continue
		}
		for _, name := range []string{"scaleTargetRef", "targetRef"} { // KEDA; VerticalPodAutoscaler and Flagger
			aim := manifest.Child(fields, "spec", name)
			kind, named := aim["kind"]
			if kind == "Deployment" || name == "scaleTargetRef" && aim != nil && !named {
				return fmt.Errorf("%s: not yet supported: %s, which is aimed at the Deployment object %v; it becomes ReplicaSets here", o.Source, o.Key, aim["name"])
			}
		}
	}
	return nil
}

// encodeStrings moves a Secret's stringData to its data: server-side apply would not remove from the cluster what leaves stringData.
func encodeStrings(secret map[string]any) {
	texts, _ := secret["stringData"].(map[string]any)
	for _, value := range texts {
		if _, ok := value.(string); !ok {
			return // the API server says what is wrong with it
		}
	}
	if len(texts) == 0 {
		return
	}
	data := manifest.Ensure(secret, "data")
	for name, value := range texts {
		data[name] = base64.StdEncoding.EncodeToString([]byte(value.(string)))
	}
	delete(secret, "stringData")
}

// owned adds whose it is to an object's labels and annotations.
func owned(fields map[string]any, id rollout.Identity) map[string]any {
	meta := manifest.Ensure(fields, "metadata")
	manifest.Ensure(meta, "labels")[LabelLane] = LaneLabel(id)
	annotations := manifest.Ensure(meta, "annotations")
	annotations[AnnotationTenant], annotations[AnnotationApplication], annotations[AnnotationTarget] = id.Tenant, id.Application, id.Target
	return fields
}

// workload is a Deployment object as it is read for a revision.
type workload struct {
	object           manifest.Object
	fields, template map[string]any
	selector         map[string]any
	replicas         *int32
	reads            []reference // configuration of the same manifests
	hash             string
}

// key is that of the ReplicaSet. Kubernetes names pods after it and cuts what is longer than 63 characters.
func (w workload) key() manifest.Key {
	return manifest.Key{Group: "apps", Kind: "ReplicaSet", Namespace: w.object.Namespace, Name: fit(w.object.Name, w.hash, 63)}
}

func (r Reviser) workload(o manifest.Object, configuration map[manifest.Key]manifest.Object) (workload, error) {
	w := workload{object: o, fields: o.Map()}
	spec := manifest.Child(w.fields, "spec")
	w.template, w.selector = manifest.Child(spec, "template"), manifest.Child(spec, "selector")
	if o.Version != "v1" {
		return w, fmt.Errorf("%s: %s: apiVersion %s is no longer served by Kubernetes; write apps/v1", o.Source, o.Key, o.APIVersion())
	}
	if w.template == nil || w.selector == nil {
		return w, fmt.Errorf("%s: %s: spec.selector and spec.template are required", o.Source, o.Key)
	}
	var err error
	if w.replicas, err = wholeNumber(spec["replicas"]); err != nil {
		return w, fmt.Errorf("%s: %s: spec.replicas: %w", o.Source, o.Key, err)
	}
	for _, ref := range references(w.template) {
		if source, found := configuration[ref.key(o.Namespace)]; found && !filledIn(source) {
			w.reads = append(w.reads, ref)
		}
	}
	w.hash, err = r.hash(w, configuration)
	return w, err
}

// filledIn reports whether a Secret gets its content in the cluster: a copy would stay empty.
func filledIn(o manifest.Object) bool {
	return o.Kind == "Secret" && o.Map()["type"] == "kubernetes.io/service-account-token"
}

// hash is that of a revision: of the Deployment object's name, its pod template and the content of the configuration that it reads, but not of what we
// add. The name is in it since selectors are told apart by the hash alone where manifests do not.
func (r Reviser) hash(w workload, configuration map[manifest.Key]manifest.Object) (string, error) {
	sum := hmac.New(sha256.New, r.Key)
	fmt.Fprintf(sum, "revision %d:%s", len(w.object.Name), w.object.Name)
	if err := digest(sum, w.template); err != nil {
		return "", err
	}
	for _, ref := range w.reads {
		fmt.Fprintf(sum, "%s/%s:", ref.kind, ref.name)
		if err := digest(sum, content(configuration[ref.key(w.object.Namespace)])); err != nil {
			return "", err
		}
	}
	return encode(sum.Sum(nil), 10), nil
}

func digest(sum io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(sum, "%d:%s", len(text), text)
	return err
}

// content of a ConfigMap or Secret is what pods can read of it; its labels are not.
func content(o manifest.Object) map[string]any {
	fields := o.Map()
	for name := range fields {
		switch name {
		case "data", "stringData", "binaryData", "type":
		default:
			delete(fields, name)
		}
	}
	return fields
}

func (r Reviser) revision(id rollout.Identity, o manifest.Object, configuration map[manifest.Key]manifest.Object) (Revision, error) {
	w, err := r.workload(o, configuration)
	if err != nil {
		return Revision{}, err
	}
	revision := Revision{Workload: o.Key, Replicas: w.replicas}
	name := w.key().Name
	copies := map[reference]string{}
	for _, ref := range w.reads {
		copied, err := r.copyOf(id, w, configuration[ref.key(o.Namespace)])
		if err != nil {
			return Revision{}, err
		}
		copies[ref] = copied.Name
		revision.Copies = append(revision.Copies, copied)
	}
	rename(w.template, copies)
	mark(w.template, id, name, w.hash)
	manifest.Ensure(w.selector, "matchLabels")[LabelHash] = w.hash
	body := map[string]any{"selector": w.selector, "template": w.template}
	if seconds, found := manifest.Child(w.fields, "spec")["minReadySeconds"]; found {
		body["minReadySeconds"] = seconds
	}
	meta := map[string]any{"name": name}
	if labels := manifest.Child(w.fields, "metadata", "labels"); labels != nil {
		meta["labels"] = maps.Clone(labels)
	}
	if annotations := manifest.Child(w.fields, "metadata", "annotations"); annotations != nil {
		delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		meta["annotations"] = annotations
	}
	if o.Namespace != "" {
		meta["namespace"] = o.Namespace
	}
	set := owned(map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": body}, id)
	maps.Copy(manifest.Ensure(meta, "labels"), manifest.Child(w.template, "metadata", "labels")) // as Kubernetes has it; a Deployment object finds what it adopts by them
	delete(manifest.Ensure(meta, "labels"), traffic.LabelSubset)                                 // it is for DestinationRules, which select pods
	manifest.Ensure(meta, "labels")[LabelWorkload] = short(nil, o.Name)
	manifest.Ensure(meta, "labels")[LabelHash] = w.hash
	manifest.Ensure(meta, "annotations")[AnnotationWorkload] = o.Name
	manifest.Ensure(meta, "annotations")[AnnotationNumber] = strconv.Itoa(id.Number)
	if id.Commit != "" {
		manifest.Ensure(meta, "annotations")[AnnotationCommit] = id.Commit
	}
	revision.ReplicaSet, err = manifest.FromMap(set, o.Source)
	return revision, err
}

// copyOf is an immutable copy of a ConfigMap or Secret for one revision. Its name is made of the revision's and of the content, so revisions never share
// one: it goes when its revision does.
func (r Reviser) copyOf(id rollout.Identity, w workload, source manifest.Object) (manifest.Object, error) {
	sum := hmac.New(sha256.New, r.Key)
	fmt.Fprintf(sum, "copy %s %s", w.key().Name, source.Kind)
	fields := content(source)
	if err := digest(sum, fields); err != nil {
		return manifest.Object{}, err
	}
	meta := map[string]any{"name": fit(source.Name, encode(sum.Sum(nil), 10), 253), "annotations": map[string]any{AnnotationCopyOf: source.Name}}
	if source.Namespace != "" {
		meta["namespace"] = source.Namespace
	}
	if source.Kind == "Secret" {
		encodeStrings(fields)
	}
	fields["apiVersion"], fields["kind"], fields["metadata"], fields["immutable"] = "v1", source.Kind, meta, true
	return manifest.FromMap(owned(fields, id), source.Source)
}

// fit joins a name and a hash to a name of at most so many characters.
func fit(name, hash string, most int) string {
	if len(name)+1+len(hash) > most {
		name = strings.TrimRight(name[:most-1-len(hash)], "-.")
	}
	return name + "-" + hash
}

// mark adds to pods what people's queries and dashboards use: frozen when the ReplicaSet is created, and no part of its name.
func mark(template map[string]any, id rollout.Identity, replicaSet, hash string) {
	meta := manifest.Ensure(template, "metadata")
	labels := manifest.Ensure(meta, "labels")
	labels[LabelHash], labels[traffic.LabelSubset], labels[LabelLane] = hash, hash, LaneLabel(id)
	annotations := manifest.Ensure(meta, "annotations")
	variables := []any{}
	for _, m := range [][3]string{{"application", "APPLICATION_NAME", id.Application}, {"deployment-id", "DEPLOYMENT_ID", id.Deployment},
		{"environment", "ENVIRONMENT_NAME", id.Target}, {"replica-set-name", "REPLICA_SET_NAME", replicaSet}} {
		annotations["deploy.armory.io/"+m[0]], annotations["towpath.dev/"+m[0]] = m[2], m[2]
		variables = append(variables, map[string]any{"name": "ARMORY_" + m[1], "value": m[2]}, map[string]any{"name": "TOWPATH_" + m[1], "value": m[2]})
	}
	spec := manifest.Ensure(template, "spec")
	for _, kind := range []string{"containers", "initContainers"} {
		for _, c := range manifest.Items(spec[kind]) {
			c["env"] = append(slices.Clone(variables), unset(c["env"], variables)...)
		}
	}
}

// unset is the variables of a container without those that we set.
func unset(env any, ours []any) []any {
	list, _ := env.([]any)
	return slices.DeleteFunc(slices.Clone(list), func(v any) bool {
		own, _ := v.(map[string]any)
		return slices.ContainsFunc(ours, func(o any) bool { return o.(map[string]any)["name"] == own["name"] })
	})
}

// reference is a ConfigMap or Secret that a pod reads.
type reference struct{ kind, name string }

func (r reference) key(namespace string) manifest.Key {
	return manifest.Key{Kind: r.kind, Namespace: namespace, Name: r.name}
}

// references of a pod template, each once, sorted. Names that come from images and accounts (pull secrets) are not configuration of the revision.
func references(template map[string]any) []reference {
	var all []reference
	visit(template, func(kind string, holder map[string]any, field string) {
		if name, ok := holder[field].(string); ok && name != "" && !slices.Contains(all, reference{kind, name}) {
			all = append(all, reference{kind, name})
		}
	})
	slices.SortFunc(all, func(a, b reference) int { return strings.Compare(a.kind+"/"+a.name, b.kind+"/"+b.name) })
	return all
}

func rename(template map[string]any, names map[reference]string) {
	visit(template, func(kind string, holder map[string]any, field string) {
		if name, ok := holder[field].(string); ok {
			if copied, found := names[reference{kind, name}]; found {
				holder[field] = copied
			}
		}
	})
}

// visit calls see for each place of a pod template that names a ConfigMap or a Secret.
func visit(template map[string]any, see func(kind string, holder map[string]any, field string)) {
	spec := manifest.Child(template, "spec")
	for _, v := range manifest.Items(spec["volumes"]) {
		if m := manifest.Child(v, "configMap"); m != nil {
			see("ConfigMap", m, "name")
		}
		if m := manifest.Child(v, "secret"); m != nil {
			see("Secret", m, "secretName")
		}
		for _, source := range manifest.Items(manifest.Child(v, "projected")["sources"]) {
			if m := manifest.Child(source, "configMap"); m != nil {
				see("ConfigMap", m, "name")
			}
			if m := manifest.Child(source, "secret"); m != nil {
				see("Secret", m, "name")
			}
		}
	}
	for _, kind := range []string{"containers", "initContainers"} {
		for _, c := range manifest.Items(spec[kind]) {
			for _, from := range manifest.Items(c["envFrom"]) {
				if m := manifest.Child(from, "configMapRef"); m != nil {
					see("ConfigMap", m, "name")
				}
				if m := manifest.Child(from, "secretRef"); m != nil {
					see("Secret", m, "name")
				}
			}
			for _, variable := range manifest.Items(c["env"]) {
				from := manifest.Child(variable, "valueFrom")
				if m := manifest.Child(from, "configMapKeyRef"); m != nil {
					see("ConfigMap", m, "name")
				}
				if m := manifest.Child(from, "secretKeyRef"); m != nil {
					see("Secret", m, "name")
				}
			}
		}
	}
}

func wholeNumber(v any) (*int32, error) {
	if v == nil {
		return nil, nil
	}
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 32)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%v is no count", v)
	}
	count := int32(n)
	return &count, nil
}
