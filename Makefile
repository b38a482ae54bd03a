# Two commands for a newcomer:  make demo   make test

VENV    ?= .venv
PYTHON  ?= python3
WORKERS ?= 2
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready

.PHONY: help setup demo study test long lint proto house chart soak chaos hostile sees bench gpu \
        constraints release release-check lowest clean

help:
	@echo "make demo    two institutions federate over TLS on this machine, with reports (MODE=, START=, SITES=, WOMEN=)"
	@echo "make study   the paper's comparison in miniature, on phantoms"
	@echo "make test    all tests, except those of make long"
	@echo "make long    the full size of what make test tries in small, and the same under further conditions"
	@echo "make lint    ruff, mypy, buf (no message breaks a released one), and pip-audit where the network allows"
	@echo "make proto   generate shared/fedcervix/wire from protos/"
	@echo "make house   draw the import graphs of docs/architecture.md from the code"
	@echo "make chart   fetch helm if it is missing; render the chart of deploy/kubernetes, and check what comes of it"
	@echo "make soak    100,000 simulated federations (HISTORIES=, SEED=); WORLD=sums: malicious coordinators of secure sums"
	@echo "make chaos   real federations whose processes are killed, frozen, cut off and filled up (KILLS=, SEED=, MODE=)"
	@echo "make hostile real federations are attacked; a table says what honest sites saw of it (ATTACKS=, SECONDS=, SEED=, PROGRAMS=)"
	@echo "make sees    each actor of a run is played, and a table says what it could read (docs/security.md, Who sees what)"
	@echo "make bench   speed of training against lightly, torchvision and the bare step, briefly; JSON=FOLDER keeps the figures"
	@echo "make gpu     the tests that need a GPU, then training and fine-tuning on it against the bare step: 9 minutes at most (JSON=FOLDER keeps the figures)"
	@echo "make release packages, SBOM, wheels for machines without a network, man pages, of the last commit (RELEASE=, PROFILES=)"
	@echo "make release-check  installs what make release made, without a network, and measures it (RELEASE=)"
	@echo "make constraints    the versions and hashes in deploy/constraints (UPGRADE=1 for the newest)"
	@echo "make lowest  the oldest versions that pyproject.toml admits are installed and tried"

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: $(READY)

demo: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" deploy/demo.sh

study: $(READY)
	$(BIN)/cervix-study run studies/phantom-mini.toml

test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

long: $(READY)
	$(BIN)/python -m pytest -m long

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for proto in tests/archive/*/*.proto; do $(BIN)/buf breaking protos --against $$(dirname $$proto) || exit 1; done
	$(BIN)/python -m tests.audit

proto: $(READY)
	$(BIN)/python -m grpc_tools.protoc -Ifedcervix/wire=protos --python_out=shared --pyi_out=shared protos/federation.proto

house: $(READY)
	$(BIN)/python -m tools.house

chart: $(READY)
	$(BIN)/python -m tools.helm
	$(BIN)/python -m pytest -n 0 tests/packaging/test_chart.py

HISTORIES ?= 100000
SEED      ?= 0
WORLD     ?= rounds
soak: $(READY)
	$(BIN)/python -m tests.simulation.soak --world $(WORLD) --histories $(HISTORIES) --seed $(SEED)

KILLS ?= 200
chaos: $(READY)
	$(BIN)/python -m tests.e2e.chaos --kills $(KILLS) --seed $(SEED) --mode $(or $(MODE),both)

ATTACKS  ?=
SECONDS  ?= 6
PROGRAMS ?= $(BIN)
hostile: $(READY)
	$(BIN)/python -m tests.e2e.hostile.field --attacks '$(ATTACKS)' --seconds $(SECONDS) --seed $(SEED) --programs $(PROGRAMS)

sees: $(READY)
	$(BIN)/python -m tests.e2e.who_sees
	$(BIN)/python -m tests.e2e.who_sees --real

JSON ?=
bench: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python benchmarks/trainer.py --quick $(if $(JSON),--json $(JSON)/trainer.json)
	$(BIN)/python benchmarks/finetune.py --quick $(if $(JSON),--json $(JSON)/finetune.json)

gpu: $(READY)
	$(BIN)/python -m tools.gpu $(if $(JSON),--json $(JSON))

$(VENV)/.release: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,release]'
	@touch $@

UPGRADE ?=
constraints: $(VENV)/.release
	$(BIN)/python -m tools.constraints $(if $(UPGRADE),--upgrade)

RELEASE  ?= dist
PROFILES ?= coordinator site-cuda site-cpu
release: $(VENV)/.release
	$(BIN)/python -m tools.release --to $(RELEASE) $(addprefix --profile ,$(PROFILES))

release-check: $(VENV)/.release
	$(BIN)/python -m tools.release_check $(RELEASE)

lowest: $(VENV)/.release
	$(BIN)/python -m tools.lowest

clean:
	rm -rf $(VENV) demo dist .mypy_cache .ruff_cache .pytest_cache
