# Every target sets the project up first if that is needed.
#   make demo                 a small search end to end on demonstrations of the egg garden
#   make garden EPISODES=200  demonstrations of the egg garden, imported: runs/garden-200/lerobot; of instances FIRST=1 on
#   make test ARGS='-k state' some of the tests; JOBS=4: in so many processes
#   make test-faults          faults that take minutes to inject
#   make audit                the code's and the dependencies' security
#   make mlflow PORT=5001     look at the results; on other machines' screens: HOST=0.0.0.0
.POSIX:
.SUFFIXES:
.PHONY: setup demo garden test test-faults test-cluster lint types audit mlflow clean

READY = .venv/.ready
RUN = .venv/bin/python
DEMO = runs/demo_data
EPISODES = 8
FIRST = 1
GARDEN = runs/garden-$(EPISODES)
HOST = 127.0.0.1
PORT = 5000
JOBS = 2
ARGS =

setup: $(READY)
	@:

$(READY): pyproject.toml constraints.txt bootstrap.sh
	@sh bootstrap.sh

# Written in the layout of BEHAVIOR's 2025 challenge, then imported as the real data is.
$(DEMO)/raw.done: $(READY)
	@rm -rf $(DEMO)/raw $(DEMO)/lerobot
	@mkdir -p $(DEMO)
	@if $(RUN) -m smolvla_core.garden.display; then \
		$(RUN) -m smolvla_core.garden.record $(DEMO)/raw --episodes 12 --picture-size 64; \
	else \
		echo 'demo: without them it runs on the scripted dataset (smolvla_core.data.synthetic)' >&2; \
		$(RUN) -m smolvla_core.data.synthetic $(DEMO)/raw; \
	fi
	@touch $@

$(DEMO)/lerobot.done: $(DEMO)/raw.done
	$(RUN) -m smolvla_core.data.behavior $(DEMO)/raw --task 6 --out $(DEMO)/lerobot
	@touch $@

demo: $(DEMO)/lerobot.done
	HF_HUB_OFFLINE=1 $(RUN) -m tune.run search_spaces/demo.yaml $(ARGS)

# Interrupted, it goes on.
garden: $(READY)
	$(RUN) -m smolvla_core.garden.record $(GARDEN)/raw --episodes $(EPISODES) --first-instance $(FIRST)
	$(RUN) -m smolvla_core.data.behavior $(GARDEN)/raw --task 6 --out $(GARDEN)/lerobot --keep-privileged

test: $(READY)
	$(RUN) -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

test-faults: $(READY)
	$(RUN) -m pytest -q -m faults $(ARGS)

# Several machines in namespaces, joined over ssh: needs root, iproute2, openssh-server and rsync; takes minutes.
test-cluster: $(READY)
	$(RUN) -m pytest -q -m cluster $(ARGS)

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	.venv/bin/lint-imports

types: $(READY)
	$(RUN) -m mypy

audit: $(READY)
	$(RUN) -m bandit -q -c pyproject.toml -r smolvla_core tune
	$(RUN) -m tests.audit_dependencies

mlflow: $(READY)
	@mkdir -p runs
	$(RUN) -m mlflow server --backend-store-uri sqlite:///runs/mlflow.db --host $(HOST) --port $(PORT) --workers 1

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
