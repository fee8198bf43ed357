# raftcache: what can be done with it, a word each. `make` alone lists them.
#
# Every variable can be said on the command line: make cluster PORT_BASE=5001

NODES     = 3
HOST      = 127.0.0.1
# node1 serves clients on the first of these ports and peers on the second,
# node2 on the ones above, and so on.
PORT_BASE = 3001
PEER_BASE = 4001
DATA      = data
SEEDS     = 1000
CARGO     = cargo
# dev is quick to build; release is quick to run.
PROFILE   = dev

TARGET    = $(or $(CARGO_TARGET_DIR),target)
BIN       = $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
SETTINGS  = NODES=$(NODES) HOST=$(HOST) PORT_BASE=$(PORT_BASE) PEER_BASE=$(PEER_BASE) DATA='$(DATA)' \
            CACHED='$(BIN)/cached' CACHECLI='$(BIN)/cachecli' OVERRIDES='$(MAKEOVERRIDES)'
LAST      = $(shell expr $(NODES) - 1)
ADDRESSES = $(shell for i in $$(seq 0 $(LAST)); do printf '%s:%s,' $(HOST) $$(($(PORT_BASE) + i)); done)

.PHONY: help demo test build install run runfollower1 runfollower2 runset runget cluster \
        clean clean-data check fix bench sim mutants clients

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## / { sub("%", "N", $$1); printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: build ## start a cluster, kill its leader, lose nothing; ends by itself
	@$(SETTINGS) bash tools/demo.sh

test: ## run every test
	$(CARGO) test --locked

build: ## build cached and cachecli
	$(CARGO) build --locked --profile $(PROFILE) --bins

install: ## fetch the dependencies
	$(CARGO) fetch --locked

run: build ## run node1 in this terminal
	@$(SETTINGS) bash tools/node.sh 1

runfollower1: build ## run node2 in this terminal
	@$(SETTINGS) bash tools/node.sh 2

runfollower2: build ## run node3 in this terminal
	@$(SETTINGS) bash tools/node.sh 3

node%: build ## run any node in this terminal: make node5 NODES=5
	@$(SETTINGS) bash tools/node.sh $*

runset: build ## write K_0 to K_9 through the leader
	@$(BIN)/cachecli --addr $(ADDRESSES:%,=%) runset

runget: build ## read K_0 to K_9 from a follower
	@$(BIN)/cachecli --addr $(ADDRESSES:%,=%) runget

cluster: build ## run all nodes in this terminal, until Ctrl-C
	@$(SETTINGS) bash tools/cluster.sh

clean: ## remove what was built
	$(CARGO) clean

clean-data: ## remove the data of the nodes
	rm -rf '$(DATA)'

sim: ## SEEDS simulated clusters from a fresh seed; SEED=7 VERBOSE=1 tells one's story
	SEEDS=$(SEEDS) FIRST=$(or $(FIRST),$(shell date +%s)000) \
		$(CARGO) test --locked --profile sim --test sim seeds -- --nocapture

mutants: ## break every rule on purpose, one at a time: each has to be noticed
	$(CARGO) test --locked --profile sim --features mutants --test sim every_mutant -- --nocapture --test-threads=1

clients: build ## other people's clients against a cluster, as far as they are here; ONLY='curl django' picks
	@$(SETTINGS) ENVIRONMENTS='$(TARGET)/clients' bash tests/clients/run.sh $(ONLY)

check: ## format, lints, documentation, tests: all that must pass; changes no file
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps
	$(CARGO) test --locked

fix: ## format, and mend what the lints can mend
	$(CARGO) clippy --locked --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt

bench: ## measure a fresh cluster of release binaries
	@$(MAKE) --no-print-directory build PROFILE=release
	@$(MAKE) --no-print-directory bench-run PROFILE=release

bench-run:
	@$(SETTINGS) bash tools/bench.sh
