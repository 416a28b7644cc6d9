# Everything that can be done with Latchkey, by name.

GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
CYCLONEDX = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: help deps scale guard build page demo sandbox test lint vuln race fuzz generate chaos bench check-deploy sbom

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: ## Build the worker and the sandbox into bin/
	$(GO) build -trimpath -o bin/ ./cmd/latchkey ./cmd/sandbox

demo: build ## Show the life of a few grants, and check it (about 25 seconds)
	./bin/sandbox demo

sandbox: build page ## Run everything in one process until ctrl-C, for your own tools and a browser
	./bin/sandbox

page: bin/page/page.js ## Build the sandbox's page for a browser with npm, where there is npm

WEB = cmd/sandbox/linkdemo/web
bin/page/page.js: $(wildcard $(WEB)/package*.json $(WEB)/page/*.js)
	@if ! command -v npm >/dev/null; then echo "npm is not installed; the sandbox runs without its page"; \
	elif ! npm --prefix $(WEB) ci --prefer-offline --loglevel=error; then echo "npm could not install the page's packages; the sandbox runs without its page"; \
	else npm --prefix $(WEB) run --silent build -- --outdir=$(CURDIR)/bin/page; fi

test: deps lint vuln race guard scale check-deploy ## Everything: lint, vulnerabilities, all tests with the race detector, 2,000 grants, large answers and much junk without it, what lies in deploy

# Debian's packages for tests: $(1) is a file of the package $(2), $(3) what goes without it.
define debian
	@if ls $(1) >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(2); } >/dev/null 2>&1 || echo "$(2) could not be installed; $(3)"; \
	else echo "$(2) is not installed; $(3)"; fi
endef

deps: ## Install Debian's PostgreSQL and Chromium for the tests that use them, where that can be done
	$(call debian,/usr/lib/postgresql/*/bin/postgres,postgresql,the tests of size are smaller)
	$(call debian,/usr/bin/chromium,chromium,the sandbox's page is not tested in a browser)

# What starts engines and processes has the machine to itself.
HEAVY = ./cmd/latchkey/worker ./cmd/sandbox
# The embedded database is not ours to watch, and would take most of the time. Tests wait more than they compute, so more
# of them run at once than there are cores.
RACE = LATCHKEY_TEST_FERRETDB=$(CURDIR)/bin/ferretdb $(GO) test -race -timeout 20m
race: ## All tests with the race detector
	$(GO) build -o bin/ ./cmd/sandbox/engines/ferretdb
	$(RACE) -p 3 $$($(GO) list ./... | grep -v -x -F "$$($(GO) list $(HEAVY))")
	for pkg in $(HEAVY); do $(RACE) -parallel 4 $$pkg || exit 1; done

scale: ## Two workers, 2,000 grants, large answers, much junk; the race detector would make the embedded engines too slow
	$(GO) test -count=1 -timeout 15m -run 'ManyGrants|ManyCallers|HeavyAnswers|JunkDoesNotHoldUp' ./cmd/latchkey/worker ./cmd/sandbox/engines ./refresher ./handlers

GUARDED = ./events ./store/... ./refresher ./handlers
guard: ## How many allocations the busiest paths take, without the race detector, which makes more
	$(GO) test -count=1 -run '^TestGuard' $(GUARDED)

lint: ## Formatting, module files, vet and staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted: $$unformatted"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

vuln: ## Known vulnerabilities in what is linked (passed over when the database can't be reached)
	@out=$$($(GO) run $(GOVULNCHECK) ./... 2>&1); code=$$?; echo "$$out" | tail -n 60; \
	if [ $$code -ne 0 ] && echo "$$out" | grep -q 'fetching vulnerabilities'; then \
		echo "govulncheck: the vulnerability database can't be reached from here; not checked"; exit 0; fi; exit $$code

# The files that deploy/check reads lie outside of its module, so that go test would
# not see them change.
check-deploy: bin/promtool ## What lies in deploy: image, compose file, Kubernetes, alerts
	$(GO) test ./deploy
	$(GO) -C deploy/check vet ./...
	$(GO) -C deploy/check test -count=1 ./...
	@if [ -s bin/promtool ]; then bin/promtool check rules deploy/prometheus/alerts.yaml && bin/promtool test rules deploy/prometheus/alerts_test.yaml \
		&& bin/promtool check config --syntax-only deploy/compose/prometheus.yml; \
	else echo "promtool can't be had here; the alert rules are not tried"; fi

# Unpacked and not installed: the package would start a Prometheus.
bin/promtool:
	@mkdir -p bin; if command -v promtool >/dev/null; then ln -sf "$$(command -v promtool)" $@; \
	elif command -v apt-get >/dev/null; then \
		dir=$$(mktemp -d); { [ "$$(id -u)" != 0 ] || apt-get update -q; (cd "$$dir" && apt-get download prometheus && dpkg-deb -x prometheus_*.deb .); } >/dev/null 2>&1; \
		cp "$$dir/usr/bin/promtool" $@ 2>/dev/null || true; rm -r "$$dir"; fi

sbom: build ## List what is linked into the worker, as CycloneDX: bin/latchkey.cdx.json
	$(GO) run $(CYCLONEDX) bin -json -output bin/latchkey.cdx.json bin/latchkey

FUZZTIME ?= 30s
fuzz: ## Run every fuzz target for FUZZTIME each
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

generate: ## Make the generated documentation anew
	$(GO) generate ./...

CHAOS ?= --duration 2m --grants 500
chaos: build ## Put worker processes through failures and let the ledger judge (CHAOS="--seed 7 --duration 5m --cluster")
	./bin/sandbox chaos $(CHAOS)

BENCH ?= --docs docs/performance.md
bench: build ## Measure workers against the bare engines, about 20 minutes on two cores (BENCH="--only refreshes --rounds 5")
	./bin/sandbox bench $(BENCH)
