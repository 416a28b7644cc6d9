# Everything that can be done with Latchkey, by name.

GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: help deps scale build demo sandbox test lint vuln race fuzz generate chaos

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## Build the worker and the sandbox into bin/
	$(GO) build -trimpath -o bin/ ./cmd/latchkey ./cmd/sandbox

demo: build ## Show the life of a few grants, and check it (about 25 seconds)
	./bin/sandbox demo

sandbox: build ## Run everything in one process until ctrl-C, for your own tools
	./bin/sandbox

test: deps lint vuln race scale ## Everything: lint, vulnerabilities, all tests with the race detector, 2,000 grants without it

deps: ## Install Debian's PostgreSQL for the tests of size, where that can be done; without it they are smaller
	@if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql; } >/dev/null 2>&1 || echo "PostgreSQL could not be installed; the tests of size are smaller"; \
	else echo "PostgreSQL is not installed; the tests of size are smaller"; fi

race: ## All tests with the race detector
	$(GO) test -race -timeout 20m ./...

scale: ## Two workers, 2,000 grants; the race detector would make the embedded engines too slow
	$(GO) test -count=1 -timeout 15m -run ManyGrants ./cmd/latchkey/worker

lint: ## Formatting, module files, vet and staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted: $$unformatted"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

vuln: ## Known vulnerabilities in what is linked (passed over when the database can't be reached)
	@out=$$($(GO) run $(GOVULNCHECK) ./... 2>&1); code=$$?; echo "$$out" | tail -n 60; \
	if [ $$code -ne 0 ] && echo "$$out" | grep -q 'fetching vulnerabilities'; then \
		echo "govulncheck: the vulnerability database can't be reached from here; not checked"; exit 0; fi; exit $$code

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
