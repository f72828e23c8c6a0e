package cluster

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

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
	AnnotationCopyOf      = "towpath.dev/copy-of"  // of a configuration copy: the name it was copied from
)

// Reviser turns a target's manifests into what is applied. Its key makes the hashes in names tell nothing about the secrets they depend on.
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
	Copies     []manifest.Object // immutable copies of ConfigMaps and Secrets, to be owned by the ReplicaSet
	Replicas   *int32
}

// Set is what the manifests are called once they are applied.
func (r Revised) Set(objects []manifest.Object) rollout.Set {
	var set rollout.Set
	for _, o := range objects {
		set.Objects = append(set.Objects, o.Key)
	}
	for _, revision := range r.Revisions {
		set.Revisions = append(set.Revisions, rollout.Revision{Workload: revision.Workload, ReplicaSet: revision.ReplicaSet.Key, Replicas: revision.Replicas})
	}
	return set
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

// Revise makes each Deployment object a ReplicaSet with a name that depends on its pod template and the configuration that the template reads, and
// nothing else: the same manifests give the same name. An object that cannot be carried is an error that names it.
func (r Reviser) Revise(id rollout.Identity, objects []manifest.Object) (Revised, error) {
	var revised Revised
	configuration := map[manifest.Key]manifest.Object{}
	for _, o := range objects {
		if o.Group == "" && (o.Kind == "ConfigMap" || o.Kind == "Secret") {
			configuration[o.Key] = o
		}
	}
	for _, o := range objects {
		if o.Group != "apps" || o.Kind != "Deployment" {
			plain, err := manifest.FromMap(owned(o.Map(), id), o.Source)
			if err != nil {
				return revised, err
			}
			revised.Plain = append(revised.Plain, plain)
			continue
		}
		revision, err := r.revision(id, o, configuration)
		if err != nil {
			return revised, fmt.Errorf("%s: %s: %w", o.Source, o.Key, err)
		}
		revised.Revisions = append(revised.Revisions, revision)
	}
	return revised, Unsupported(objects)
}

// Unsupported is an error for objects that ask for what this version cannot do yet.
func Unsupported(objects []manifest.Object) error {
	for _, o := range objects {
		if o.Group != "autoscaling" || o.Kind != "HorizontalPodAutoscaler" {
			continue
		}
		if aim := child(o.Map(), "spec", "scaleTargetRef"); aim["kind"] == "Deployment" {
			return fmt.Errorf("%s: not yet supported: %s, which is aimed at a Deployment object", o.Source, o.Key)
		}
	}
	return nil
}

// owned adds whose it is to an object's labels and annotations.
func owned(fields map[string]any, id rollout.Identity) map[string]any {
	meta := ensure(fields, "metadata")
	ensure(meta, "labels")[LabelLane] = LaneLabel(id)
	annotations := ensure(meta, "annotations")
	annotations[AnnotationTenant], annotations[AnnotationApplication], annotations[AnnotationTarget] = id.Tenant, id.Application, id.Target
	return fields
}

func (r Reviser) revision(id rollout.Identity, o manifest.Object, configuration map[manifest.Key]manifest.Object) (Revision, error) {
	fields := o.Map()
	spec := child(fields, "spec")
	template := child(spec, "template")
	selector := child(spec, "selector")
	if template == nil || selector == nil {
		return Revision{}, fmt.Errorf("spec.selector and spec.template are required")
	}
	revision := Revision{Workload: o.Key}
	replicas, err := wholeNumber(spec["replicas"])
	if err != nil {
		return Revision{}, fmt.Errorf("spec.replicas: %w", err)
	}
	revision.Replicas = replicas

	read := references(template)
	hash, err := r.hash(o, template, read, configuration)
	if err != nil {
		return Revision{}, err
	}
	copies := map[reference]string{}
	for _, ref := range read {
		source, found := configuration[manifest.Key{Kind: ref.kind, Namespace: o.Namespace, Name: ref.name}]
		if !found {
			continue
		}
		copied, err := r.copyOf(id, source)
		if err != nil {
			return Revision{}, err
		}
		copies[ref] = copied.Name
		revision.Copies = append(revision.Copies, copied)
	}
	rename(template, copies)

	name := fit(o.Name, hash, 63)
	mark(template, id, name, hash)
	ensure(selector, "matchLabels")[LabelHash] = hash
	body := map[string]any{"selector": selector, "template": template}
	if seconds, found := spec["minReadySeconds"]; found {
		body["minReadySeconds"] = seconds
	}
	meta := map[string]any{"name": name}
	if labels := child(fields, "metadata", "labels"); labels != nil {
		meta["labels"] = labels
	}
	if o.Namespace != "" {
		meta["namespace"] = o.Namespace
	}
	set := owned(map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": body}, id)
	ensure(meta, "labels")[LabelWorkload] = short(nil, o.Name)
	ensure(meta, "labels")[LabelHash] = hash
	ensure(meta, "annotations")[AnnotationWorkload] = o.Name
	ensure(meta, "annotations")[AnnotationNumber] = strconv.Itoa(id.Number)
	revision.ReplicaSet, err = manifest.FromMap(set, o.Source)
	return revision, err
}

// hash is the name of a revision: of the pod template and of the content of the configuration that it reads, but not of what we add.
func (r Reviser) hash(o manifest.Object, template map[string]any, read []reference, configuration map[manifest.Key]manifest.Object) (string, error) {
	text, err := json.Marshal(template)
	if err != nil {
		return "", err
	}
	sum := hmac.New(sha256.New, r.Key)
	sum.Write(text)
	for _, ref := range read {
		if source, found := configuration[manifest.Key{Kind: ref.kind, Namespace: o.Namespace, Name: ref.name}]; found {
			fmt.Fprintf(sum, "%s/%s:", ref.kind, ref.name)
			sum.Write(source.JSON)
		}
	}
	return encode(sum.Sum(nil), 10), nil
}

// copyOf is an immutable copy of a ConfigMap or Secret under a name made of its content.
func (r Reviser) copyOf(id rollout.Identity, source manifest.Object) (manifest.Object, error) {
	sum := hmac.New(sha256.New, r.Key)
	sum.Write(source.JSON)
	name := fit(source.Name, encode(sum.Sum(nil), 10), 253)
	fields := source.Map()
	meta := map[string]any{"name": name, "annotations": map[string]any{AnnotationCopyOf: source.Name}}
	if source.Namespace != "" {
		meta["namespace"] = source.Namespace
	}
	fields["metadata"], fields["immutable"] = meta, true
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
	meta := ensure(template, "metadata")
	labels := ensure(meta, "labels")
	labels[LabelHash], labels[LabelLane] = hash, LaneLabel(id)
	annotations := ensure(meta, "annotations")
	variables := []any{}
	for _, m := range [][3]string{{"application", "APPLICATION_NAME", id.Application}, {"deployment-id", "DEPLOYMENT_ID", id.Deployment},
		{"environment", "ENVIRONMENT_NAME", id.Target}, {"replica-set-name", "REPLICA_SET_NAME", replicaSet}} {
		annotations["deploy.armory.io/"+m[0]], annotations["towpath.dev/"+m[0]] = m[2], m[2]
		variables = append(variables, map[string]any{"name": "ARMORY_" + m[1], "value": m[2]}, map[string]any{"name": "TOWPATH_" + m[1], "value": m[2]})
	}
	spec := ensure(template, "spec")
	for _, kind := range []string{"containers", "initContainers"} {
		for _, c := range items(spec[kind]) {
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
	spec := child(template, "spec")
	for _, v := range items(spec["volumes"]) {
		if m := child(v, "configMap"); m != nil {
			see("ConfigMap", m, "name")
		}
		if m := child(v, "secret"); m != nil {
			see("Secret", m, "secretName")
		}
		for _, source := range items(child(v, "projected")["sources"]) {
			if m := child(source, "configMap"); m != nil {
				see("ConfigMap", m, "name")
			}
			if m := child(source, "secret"); m != nil {
				see("Secret", m, "name")
			}
		}
	}
	for _, kind := range []string{"containers", "initContainers"} {
		for _, c := range items(spec[kind]) {
			for _, from := range items(c["envFrom"]) {
				if m := child(from, "configMapRef"); m != nil {
					see("ConfigMap", m, "name")
				}
				if m := child(from, "secretRef"); m != nil {
					see("Secret", m, "name")
				}
			}
			for _, variable := range items(c["env"]) {
				from := child(variable, "valueFrom")
				if m := child(from, "configMapKeyRef"); m != nil {
					see("ConfigMap", m, "name")
				}
				if m := child(from, "secretKeyRef"); m != nil {
					see("Secret", m, "name")
				}
			}
		}
	}
}

// child walks down maps; nil where there is none.
func child(m map[string]any, path ...string) map[string]any {
	for _, name := range path {
		m, _ = m[name].(map[string]any)
	}
	return m
}

// ensure is the map under a name, made when it is not there.
func ensure(m map[string]any, name string) map[string]any {
	inner, ok := m[name].(map[string]any)
	if !ok {
		inner = map[string]any{}
		m[name] = inner
	}
	return inner
}

// items of a list that are maps.
func items(list any) []map[string]any {
	var all []map[string]any
	values, _ := list.([]any)
	for _, v := range values {
		if m, ok := v.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
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
