package world

// TwoTargets is a deployment file of two targets, prod after staging.
func TwoTargets(application, extra string) string {
	return `
application: ` + application + `
targets:
  staging: {account: staging, namespace: NAMESPACE, strategy: rolling}
  prod:
    account: prod
    namespace: NAMESPACE
    strategy: rolling
    constraints: {dependsOn: [staging]}
deploymentConfig:
  timeout: {duration: 60, unit: seconds}
` + extra + `
manifests: [{path: manifests}]
strategies: {rolling: {canary: {steps: [{setWeight: {weight: 100}}]}}}
`
}

// Workload is a Deployment object, its Service and its settings.
func Workload(name, image string) string {
	return `
apiVersion: apps/v1
kind: Deployment
metadata: {name: ` + name + `}
spec:
  replicas: 2
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}}
    spec:
      containers: [{name: app, image: "` + image + `", envFrom: [{configMapRef: {name: ` + name + `}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: ` + name + `}
spec: {selector: {app: ` + name + `}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ` + name + `}
data: {IMAGE: "` + image + `"}
`
}

// OnProd is a deployment file of the application shop with one target and a strategy of its own.
func OnProd(strategy, extra string) string {
	return `
application: shop
targets:
  prod: {account: prod, namespace: NAMESPACE, strategy: careful}
deploymentConfig:
  timeout: {duration: 60, unit: seconds}
` + extra + `
manifests: [{path: manifests}]
strategies:
  careful: ` + strategy + `
`
}
