package manifest

import "slices"

// Ranks of apply, lowest first: an object may need what lies in a lower rank, never what lies in a higher one.
const (
	RankNamespace     = iota // namespaces
	RankDefinition           // CustomResourceDefinitions: Established before anything of their kinds is applied
	RankConfiguration        // RBAC, accounts, quotas, configuration, claims: read by workloads
	RankNetwork              // Services and routes: there before pods, which get their variables and addresses from them
	RankWorkload             // what runs pods
	RankDependent            // what aims at workloads, and every kind not named here
)

var ranks = map[[2]string]int{
	{"", "Namespace"}: RankNamespace,
	{"apiextensions.k8s.io", "CustomResourceDefinition"}: RankDefinition,

	{"", "ServiceAccount"}: RankConfiguration, {"", "Secret"}: RankConfiguration, {"", "ConfigMap"}: RankConfiguration,
	{"", "ResourceQuota"}: RankConfiguration, {"", "LimitRange"}: RankConfiguration,
	{"", "PersistentVolume"}: RankConfiguration, {"", "PersistentVolumeClaim"}: RankConfiguration,
	{"storage.k8s.io", "StorageClass"}: RankConfiguration, {"scheduling.k8s.io", "PriorityClass"}: RankConfiguration,
	{"rbac.authorization.k8s.io", "ClusterRole"}: RankConfiguration, {"rbac.authorization.k8s.io", "ClusterRoleBinding"}: RankConfiguration,
	{"rbac.authorization.k8s.io", "Role"}: RankConfiguration, {"rbac.authorization.k8s.io", "RoleBinding"}: RankConfiguration,
	{"networking.k8s.io", "NetworkPolicy"}: RankConfiguration, {"policy", "PodDisruptionBudget"}: RankConfiguration,

	{"", "Service"}: RankNetwork,
	{"networking.istio.io", "DestinationRule"}: RankNetwork, // its subsets are there before what sends traffic to them

	{"", "Pod"}: RankWorkload, {"", "ReplicationController"}: RankWorkload,
	{"apps", "Deployment"}: RankWorkload, {"apps", "ReplicaSet"}: RankWorkload, {"apps", "StatefulSet"}: RankWorkload, {"apps", "DaemonSet"}: RankWorkload,
	{"batch", "Job"}: RankWorkload, {"batch", "CronJob"}: RankWorkload,
}

// Rank is the place of an object in the order of apply.
func (k Key) Rank() int {
	if rank, ok := ranks[[2]string{k.Group, k.Kind}]; ok {
		return rank
	}
	return RankDependent
}

// Sort puts objects in the order of apply, objects of one rank by key; rollback and removal go through the ranks the other way.
func Sort(objects []Object) {
	slices.SortFunc(objects, func(a, b Object) int {
		if a.Rank() != b.Rank() {
			return a.Rank() - b.Rank()
		}
		return a.Compare(b.Key)
	})
}

// Precious reports whether losing the object may lose data that no manifest brings back: it is never removed without a person's word.
func (k Key) Precious() bool {
	switch k.Kind {
	case "Namespace", "PersistentVolumeClaim":
		return k.Group == ""
	case "CustomResourceDefinition":
		return k.Group == "apiextensions.k8s.io"
	}
	return false
}
