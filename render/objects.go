package render

import (
	"encoding/json"
	"fmt"

	"towpath/deployment"
	"towpath/manifest"
)

// useNumber keeps numbers as they are written.
func useNumber(d *json.Decoder) *json.Decoder {
	d.UseNumber()
	return d
}

// clusterWide are the built-in kinds without a namespace. Other kinds that the render itself does not define are taken to have one: manifests of
// cluster-wide custom resources name none, and theirs stays empty when the target gives none.
var clusterWide = map[[2]string]bool{
	{"", "Namespace"}: true, {"", "Node"}: true, {"", "PersistentVolume"}: true, {"", "ComponentStatus"}: true,
	{"apiextensions.k8s.io", "CustomResourceDefinition"}: true, {"apiregistration.k8s.io", "APIService"}: true,
	{"rbac.authorization.k8s.io", "ClusterRole"}: true, {"rbac.authorization.k8s.io", "ClusterRoleBinding"}: true,
	{"storage.k8s.io", "StorageClass"}: true, {"storage.k8s.io", "CSIDriver"}: true, {"storage.k8s.io", "CSINode"}: true, {"storage.k8s.io", "VolumeAttachment"}: true,
	{"storage.k8s.io", "VolumeAttributesClass"}: true, {"scheduling.k8s.io", "PriorityClass"}: true, {"node.k8s.io", "RuntimeClass"}: true,
	{"admissionregistration.k8s.io", "ValidatingWebhookConfiguration"}: true, {"admissionregistration.k8s.io", "MutatingWebhookConfiguration"}: true,
	{"admissionregistration.k8s.io", "ValidatingAdmissionPolicy"}: true, {"admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"}: true,
	{"admissionregistration.k8s.io", "MutatingAdmissionPolicy"}: true, {"admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"}: true,
	{"certificates.k8s.io", "CertificateSigningRequest"}: true, {"certificates.k8s.io", "ClusterTrustBundle"}: true,
	{"flowcontrol.apiserver.k8s.io", "FlowSchema"}: true, {"flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"}: true,
	{"networking.k8s.io", "IngressClass"}: true, {"networking.k8s.io", "IPAddress"}: true, {"networking.k8s.io", "ServiceCIDR"}: true,
	{"resource.k8s.io", "DeviceClass"}: true, {"resource.k8s.io", "ResourceSlice"}: true,
	{"gateway.networking.k8s.io", "GatewayClass"}: true,
}

// finish gives objects their namespaces and holds the whole against the limits. Two objects of one name would overwrite each other.
func (r *rendering) finish(all []manifest.Object) []manifest.Object {
	if len(all) > r.job.Limits.Objects {
		r.fail(deployment.Position{}, "manifests", "%d objects; at most %d are deployed at once", len(all), r.job.Limits.Objects)
		return nil
	}
	own := map[[2]string]bool{} // kinds that the render defines → cluster-wide
	for _, o := range all {
		if o.Group == "apiextensions.k8s.io" && o.Kind == "CustomResourceDefinition" {
			group, kind, wide := defined(o)
			own[[2]string{group, kind}] = wide
		}
	}
	sources := map[manifest.Key]string{}
	var size int64
	finished := make([]manifest.Object, 0, len(all))
	for _, o := range all {
		o, err := r.settle(o, own)
		if err != nil {
			r.fail(deployment.Position{}, "manifests", "%v", err)
			continue
		}
		if first, twice := sources[o.Key]; twice {
			r.fail(deployment.Position{}, "manifests", "%s is there twice: %s and %s", o.Key, first, o.Source)
			continue
		}
		sources[o.Key] = o.Source
		size += int64(len(o.JSON))
		finished = append(finished, o)
	}
	if size > r.job.Limits.OutputBytes {
		r.fail(deployment.Position{}, "manifests", "the objects have %d bytes; at most %d are deployed at once", size, r.job.Limits.OutputBytes)
		return nil
	}
	return finished
}

// settle gives a namespaced object the target's namespace, or, where neither says one, the default one.
func (r *rendering) settle(o manifest.Object, own map[[2]string]bool) (manifest.Object, error) {
	kind := [2]string{o.Group, o.Kind}
	wide, known := own[kind]
	if !known {
		wide = clusterWide[kind]
	}
	namespace := r.target.Namespace
	if wide {
		namespace = ""
	} else if namespace == "" {
		if namespace = o.Namespace; namespace == "" {
			namespace = "default"
		}
	}
	if namespace == o.Namespace {
		return o, nil
	}
	fields := o.Map()
	meta := fields["metadata"].(map[string]any)
	if namespace == "" {
		delete(meta, "namespace")
	} else {
		meta["namespace"] = namespace
	}
	return manifest.FromMap(fields, o.Source)
}

// defined is the kind that a CustomResourceDefinition defines.
func defined(o manifest.Object) (group, kind string, wide bool) {
	spec, _ := o.Map()["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	group, _ = spec["group"].(string)
	kind, _ = names["kind"].(string)
	return group, kind, fmt.Sprint(spec["scope"]) == "Cluster"
}
