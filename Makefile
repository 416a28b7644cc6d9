# Everything that can be done with Latchkey, by name.

GO ?= go
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOTESTSUM = gotest.tools/gotestsum@v1.13.0
CYCLONEDX = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

# go test with its usual output, but for what failed and what was skipped, which it
# lists at the end.
TEST = $(GO) run $(GOTESTSUM) --format standard-quiet --

.PHONY: help deps scale guard build page demo sandbox picture pictures quick fast test lint format vuln race fuzz generate chaos bench check-deploy sbom

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# ctrl-C is no failure: make ends with what it stops, and says nothing of it.
stoppable = trap : INT; { $(1); } || [ $$? -eq 130 ]

build: ## Build the worker and the sandbox into bin/
	@$(call stoppable,GO=$(GO) .ci/build ./cmd/latchkey ./cmd/sandbox)

demo: build ## Show the life of a few grants, and check it (about 25 seconds)
	@$(call stoppable,bin/sandbox demo)

sandbox: build page ## Run everything in one process until ctrl-C, for your own tools and a browser
	@$(call stoppable,bin/sandbox)

picture: build ## Record the demo as the picture in the README
	bin/sandbox demo --picture docs/pictures/demo.svg

pictures: picture ## Record it, and draw the operator's page for its documentation
	LATCHKEY_TEST_PICTURES=$(CURDIR)/docs/pictures $(GO) test -count=1 -run TestTheOperatorsPageInABrowser/pictures ./cmd/latchkey/worker

page: bin/page/page.js ## Build the sandbox's page for a browser with npm, where there is npm

WEB = cmd/sandbox/linkdemo/web
bin/page/page.js: $(wildcard $(WEB)/package*.json $(WEB)/page/*.js)
	@.ci/page $(WEB) $(CURDIR)/bin/page

quick: ## While you work, in under two minutes: lint and the fast tests
	.ci/parts lint fast

test: ## Everything: lint, vulnerabilities, all tests with the race detector, 2,000 grants, large answers and much junk without it, what lies in deploy
	.ci/parts deps lint vuln race guard scale check-deploy

deps: ## Install Debian's PostgreSQL and Chromium for the tests that use them, where that can be done
	@.ci/debian '/usr/lib/postgresql/*/bin/postgres' postgresql 'tests of size are smaller'
	@.ci/debian /usr/bin/chromium chromium "the sandbox's page is not tested in a browser"

fast: ## The fast tests, without the race detector
	$(TEST) -short ./events/... ./config ./store/... ./refresher ./handlers/... ./docs/... \
		./cmd/latchkey/cli ./cmd/latchkey/view ./cmd/latchkey/doctor ./cmd/latchkey/imports ./cmd/latchkey/operator

# What starts engines and processes has the machine to itself.
HEAVY = ./cmd/latchkey/worker ./cmd/sandbox
# The embedded database is not ours to watch, and would take most of the time. Tests wait more than they compute, so more
# of them run at once than there are cores.
RACE = LATCHKEY_TEST_FERRETDB=$(CURDIR)/bin/ferretdb $(TEST) -race -timeout 20m
race: ## All tests with the race detector
	$(GO) build -o bin/ ./cmd/sandbox/engines/ferretdb
	$(RACE) -p 3 ./refresher ./handlers $$($(GO) list ./... | grep -v -x -F "$$($(GO) list $(HEAVY))") # the longest first
	for pkg in $(HEAVY); do $(RACE) -parallel 4 $$pkg || exit 1; done

scale: ## Two workers, 2,000 grants, large answers, much junk; the race detector would make the embedded engines too slow
	$(TEST) -count=1 -timeout 15m -run 'ManyGrants|ManyCallers|HeavyAnswers|JunkDoesNotHoldUp' ./cmd/latchkey/worker ./cmd/sandbox/engines ./refresher ./handlers/...

GUARDED = ./events ./store/... ./refresher ./handlers/...
guard: ## How many allocations the busiest paths take, without the race detector, which makes more
	$(TEST) -count=1 -run '^TestGuard' $(GUARDED)

lint: ## Formatting, module files, and what golangci-lint finds (.golangci.yml)
	$(GO) mod tidy -diff
	$(GO) run $(GOLANGCI) run
	$(GO) -C deploy/check mod tidy -diff

format: ## Format all Go files
	$(GO) run $(GOLANGCI) fmt

vuln: ## Known vulnerabilities in what is linked (skipped when the database can't be reached)
	@GO=$(GO) .ci/vulnerabilities

# The files that deploy/check reads lie outside of its module, so that go test would
# not see them change.
check-deploy: ## What lies in deploy: image, compose file, Kubernetes, Helm chart, alerts
	$(TEST) ./deploy
	cd deploy/check && $(TEST) -count=1 ./...
	@.ci/alerts

sbom: build ## List what is linked into the worker, as CycloneDX: bin/latchkey.cdx.json
	$(GO) run $(CYCLONEDX) bin -json -output bin/latchkey.cdx.json bin/latchkey

FUZZTIME ?= 30s
fuzz: ## Run every fuzz target for FUZZTIME each
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

generate: ## Regenerate documentation, and with npm the types of the client for Node.js
	$(GO) generate ./...
	@if command -v npm >/dev/null; then npm --prefix events/node ci --prefer-offline --loglevel=error && npm --prefix events/node run --silent generate; \
	else echo "npm is not installed; the types of the client for Node.js stay as they are"; fi

CHAOS ?= --duration 2m --grants 500
chaos: build ## Put worker processes through failures and let the ledger judge (CHAOS="--seed 7 --duration 5m --cluster")
	@$(call stoppable,bin/sandbox chaos $(CHAOS))

BENCH ?= --docs docs/performance.md
bench: build ## Measure workers against the bare engines, about 25 minutes on two cores (BENCH="--only refreshes --rounds 5")
	@$(call stoppable,bin/sandbox bench $(BENCH))
