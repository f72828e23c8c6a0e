package simulate

import (
	"cmp"

	"towpath/manifest"
	"towpath/reconcile/rollout"
)

// standInPods is how many pods a stand-in has.
const standInPods = 10

// StandIn is a set in the place of manifests that are not to be had: one Deployment object with the application's name.
func StandIn(application, namespace string) rollout.Set {
	key := manifest.Key{Group: "apps", Kind: "Deployment", Namespace: cmp.Or(namespace, "default"), Name: application}
	pods := int32(standInPods)
	return rollout.Set{Objects: []manifest.Key{key}, Revisions: []rollout.Revision{{Workload: key,
		ReplicaSet: manifest.Key{Group: "apps", Kind: "ReplicaSet", Namespace: key.Namespace}, Labels: map[string]string{"app": application}, Replicas: &pods}}}
}
