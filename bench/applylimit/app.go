package main

import (
	"fmt"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// app is one app: five objects, of the size of a small web service.
const app = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: NAME
  namespace: SPACE
  labels: {app.kubernetes.io/name: NAME, app.kubernetes.io/version: 1.0.REV}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: NAME
  namespace: SPACE
  labels: {app.kubernetes.io/name: NAME, app.kubernetes.io/version: 1.0.REV}
data:
  revision: "REV"
  greeting: hello from NAME
  settings.yaml: |
    logLevel: info
    upstreams: [http://orders.example.test, http://stock.example.test]
    cache: {size: 128Mi, ttl: 30s}
---
apiVersion: v1
kind: Service
metadata:
  name: NAME
  namespace: SPACE
  labels: {app.kubernetes.io/name: NAME, app.kubernetes.io/version: 1.0.REV}
spec:
  type: ClusterIP
  selector: {app.kubernetes.io/name: NAME}
  ports:
  - {name: http, port: 9898, targetPort: http, protocol: TCP}
  - {name: grpc, port: 9999, targetPort: grpc, protocol: TCP}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: NAME
  namespace: SPACE
  labels: {app.kubernetes.io/name: NAME, app.kubernetes.io/version: 1.0.REV}
spec:
  replicas: PODS
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  selector:
    matchLabels: {app.kubernetes.io/name: NAME}
  template:
    metadata:
      labels: {app.kubernetes.io/name: NAME}
      annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9797", example.test/revision: "REV"}
    spec:
      serviceAccountName: NAME
      terminationGracePeriodSeconds: 30
      containers:
      - name: web
        image: registry.example.test/web:1.0.REV
        imagePullPolicy: IfNotPresent
        args: [--port=9898, --port-metrics=9797, --grpc-port=9999, --level=info]
        env:
        - {name: COLOUR, value: "#34577c"}
        - name: REVISION
          valueFrom: {configMapKeyRef: {name: NAME, key: revision}}
        ports:
        - {name: http, containerPort: 9898, protocol: TCP}
        - {name: http-metrics, containerPort: 9797, protocol: TCP}
        - {name: grpc, containerPort: 9999, protocol: TCP}
        livenessProbe:
          httpGet: {path: /healthz, port: http}
          initialDelaySeconds: 1
          timeoutSeconds: 5
          periodSeconds: 10
        readinessProbe:
          httpGet: {path: /readyz, port: http}
          initialDelaySeconds: 1
          timeoutSeconds: 5
          periodSeconds: 10
        volumeMounts:
        - {name: data, mountPath: /data}
        resources:
          requests: {cpu: 1m, memory: 16Mi}
      volumes:
      - name: data
        emptyDir: {}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: NAME
  namespace: SPACE
  labels: {app.kubernetes.io/name: NAME, app.kubernetes.io/version: 1.0.REV}
spec:
  ingressClassName: nginx
  rules:
  - host: NAME.example.test
    http:
      paths:
      - path: /
        pathType: ImplementationSpecific
        backend: {service: {name: NAME, port: {number: 9898}}}
`

var paths = map[string]string{"ServiceAccount": "/api/v1/namespaces/%s/serviceaccounts/%s", "ConfigMap": "/api/v1/namespaces/%s/configmaps/%s",
	"Service": "/api/v1/namespaces/%s/services/%s", "Deployment": "/apis/apps/v1/namespaces/%s/deployments/%s",
	"Ingress": "/apis/networking.k8s.io/v1/namespaces/%s/ingresses/%s"}

// text is the YAML of the i-th app.
func text(namespace string, i, revision, pods int) string {
	return strings.NewReplacer("NAME", fmt.Sprintf("app-%04d", i), "SPACE", namespace, "REV", strconv.Itoa(revision), "PODS", strconv.Itoa(pods)).Replace(app)
}

// object is a prepared request: where it goes, and what it says.
type object struct {
	path string
	body []byte
}

func objects(namespace string, apps, revision, pods int) (all []object, err error) {
	for i := range apps {
		for document := range strings.SplitSeq(text(namespace, i, revision, pods), "\n---\n") {
			var head struct {
				Kind     string
				Metadata struct{ Name string }
			}
			if err := yaml.Unmarshal([]byte(document), &head); err != nil {
				return nil, err
			}
			body, err := yaml.YAMLToJSON([]byte(document))
			if err != nil {
				return nil, err
			}
			all = append(all, object{fmt.Sprintf(paths[head.Kind], namespace, head.Metadata.Name), body})
		}
	}
	return all, nil
}
