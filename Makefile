# Towpath. `make demo` shows the main job on this machine, `make test` passes every test; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BUILD        := $(CURDIR)/.build
BIN          := $(BUILD)/bin
LOCALCLUSTER := $(BUILD)/localcluster
ISSUER       := $(BUILD)/issuer
LINT         := $(BUILD)/lint/golangci-lint
VERSION      := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS      := -s -w -X towpath/internal/version.version=$(VERSION)
# grpcnotrace leaves out gRPC's debugging pages, and with them html/template: a fifth of the agent, on disk and in memory.
TAGS         := grpcnotrace
PROGRAMS     := towpath towpath-controller towpath-agent towpath-demo

export TOWPATH_LOCALCLUSTER := $(LOCALCLUSTER)
export TOWPATH_ISSUER := $(ISSUER)
export CGO_ENABLED ?= 1

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## the programs, into .build/bin
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 test/build-with-progress $(BUILD)/build.log -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))

# Kubernetes itself is compiled for it: 6 to 15 minutes on two cores the first time, seconds after.
.PHONY: localcluster
localcluster: ## the local Kubernetes control plane that demo and tests run on
	@test/build-localcluster $(LOCALCLUSTER)

.PHONY: deps
deps: ## what tests need of the system's packages (PostgreSQL, an OCI registry, Prometheus, npm)
	@test/install-packages

.PHONY: issuer
issuer: $(ISSUER)/node_modules ## an OIDC issuer that is not ours, from npm, which tests of agents' identities run

$(ISSUER)/node_modules: internal/testkit/oidc/package-lock.json
	@mkdir -p $(ISSUER)
	@cp internal/testkit/oidc/package.json internal/testkit/oidc/package-lock.json $(ISSUER)
	@npm ci --prefix $(ISSUER) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

.PHONY: demo
demo: demo-needs build $(if $(KUBECONFIGS),,localcluster) ## a merge rolls out to two real local clusters, live in this terminal (KUBECONFIGS=a,b: to yours)
	@$(BIN)/towpath-demo --kubeconfigs '$(KUBECONFIGS)'

.PHONY: demo-needs
demo-needs:
	@test -x $(BIN)/towpath-demo || echo 'The first time, Towpath is compiled: 2 to 5 minutes on two cores, 1 GB of disk.'
	@test -n '$(KUBECONFIGS)' -o -x $(LOCALCLUSTER)/kubectl || \
	  echo 'All of Kubernetes is compiled too: 6 to 15 minutes on two cores, about 3 GB of memory, 4 GB of disk (the Go build cache). No Docker, no root.'

.PHONY: demo-stop
demo-stop: ## ends what demos started
	@$(BIN)/towpath-demo stop

.PHONY: test
# -count=1 where tests start programs that they build: the cache of test results does not know what those are made of.
test: deps issuer localcluster ## every test, with the race detector, on real clusters and databases
	go vet ./...
	$(MAKE) -j2 test-raced test-proof
	cd tools && go vet ./images && go test ./images
	cd test/localcluster && go vet ./... && go test -count=1 -timeout 15m ./...

.PHONY: test-raced test-proof
# The longest first: what is short fills in beside them, in place of waiting for them at the end.
test-raced:
	go test -race -count=1 -timeout 60m $$(go list ./test/killed ./test/e2e ./... | grep -v /reconcile/proof$$)

# Time is virtual here and one thing runs at a time: the race detector would find nothing, and take ten times as long. The others wait for clusters meanwhile.
test-proof:
	go test -timeout 60m ./reconcile/proof

.PHONY: images
images: ## container images for amd64 and arm64, without Docker, into .build/images (REGISTRY=HOST/PATH pushes them)
	@go -C tools run ./images -version '$(VERSION)' -out $(BUILD)/images -registry '$(REGISTRY)'

.PHONY: lint
lint: $(LINT) ## format, vet, linters, generated files
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run: gofmt -w .' >&2; exit 1; }
	$(LINT) run ./...

$(LINT): tools/lint/go.mod tools/lint/go.sum
	@mkdir -p $(dir $@)
	@echo 'building the linter (two or three minutes the first time)'
	cd tools/lint && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: generate
generate: ## generated code and reference pages
	go generate ./...
	go test ./api ./deployment ./cmd/towpath ./cmd/towpath-controller/config ./test/charts -run Current -update

.PHONY: generate-github
generate-github: ## the part of GitHub's API description that tests check against (needs npm; VERSION of @octokit/openapi: GITHUB_API=…)
	go -C tools run ./githubapi -out ../internal/testkit/github/description $(if $(GITHUB_API),-version $(GITHUB_API))

.PHONY: generate-sops
generate-sops: ## files that SOPS itself encrypts, and keys for them, that tests read (needs gpg)
	cd render/sops/testdata && ./make.sh

.PHONY: bench
bench: deps localcluster ## the promised figures, measured on this machine, into bench/results.json (ARGS='-only push,idle' for some)
	@go run ./bench $(ARGS)

.PHONY: bench-rooms
bench-rooms: ## benchmarks of single rooms
	go test -run '^$$' -bench . -benchtime 2x ./reconcile/... ./gitsource/... ./deployment/...

.PHONY: soak
soak: localcluster ## the long form of the tests that kill the controller, of the proof of rollouts, and of watches through the tunnel
	TOWPATH_SOAK=1 go test -timeout 24h ./test/killed ./reconcile/proof
	TOWPATH_SOAK=1 go test -timeout 1h -run TestNothingIsLeftBehind ./agent

.PHONY: clean
clean: ## removes what was built, and what demos left
	rm -rf $(BUILD)
