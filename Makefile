# make demo and make test do everything; the rest are their parts.
.PHONY: setup build demo test simulate chaos fuzz lint format bench clean help
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

simulate: build ## Simulate 10,000 trainers, and 1,000 small clusters, under every fault.
	@.build/release/lineup simulate --seed 1 --workers 10000 --steps 20
	@.build/release/lineup simulate --seed 1 --seeds 1000 --steps 200

chaos: setup ## Break real clusters for a while and compare: make chaos MINUTES=10.
	@scripts/build.sh tests
	@LINEUP_CHAOS_MINUTES=$${MINUTES:-10} LINEUP_TEST_SECONDS=$$((60 * $${MINUTES:-10} + 600)) \
		scripts/test.sh ChaosTests

fuzz: setup ## Feed changed frames to every parser and state machine: make fuzz FRAMES=10000000 SEED=1.
	@scripts/build.sh tests
	@.build/release/lineup-fuzz --frames $${FRAMES:-10000000} --seed $${SEED:-1}

lint: ## Check format and doc comments.
	@scripts/lint.sh

format: ## Put the sources into their format.
	@find Sources Tests Benchmarks Package.swift -name '*.swift' -not -path '*/Generated/*' -print0 | \
		xargs -0 swift format --in-place --parallel

bench: build ## Measure the machinery's cost, and images/s beside PyTorch.
	@scripts/bench.sh

clean: ## Remove what was built; LibTorch stays in the cache.
	@rm -rf .build demo
