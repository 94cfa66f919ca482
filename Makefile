# make demo and make test do everything; the rest are their parts.
.PHONY: setup build demo test lint format bench clean help
.DEFAULT_GOAL := help

help: ## What there is.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## Get what is missing: C libraries, photographs, LibTorch.
	@scripts/setup.sh

build: setup ## Build .build/release/lineup.
	@scripts/build.sh

demo: build ## Make data, train on a local cluster, break it, resume it, show the scores.
	@scripts/demo.sh

test: setup ## Run every test, or those that match: make test FILTER=TripletLossTests.
	@scripts/build.sh tests
	@scripts/test.sh "$(FILTER)"

lint: ## Check format and doc comments.
	@scripts/lint.sh

format: ## Put the sources into their format.
	@find Sources Tests Benchmarks Package.swift -name '*.swift' -not -path '*/Generated/*' -print0 | \
		xargs -0 swift format --in-place --parallel

bench: build ## Measure the machinery's cost, and images/s beside PyTorch.
	@scripts/bench.sh

clean: ## Remove what was built; LibTorch stays in the cache.
	@rm -rf .build demo
