# Two commands do everything on a machine with Python 3.11 or 3.12, pip and make: `make run` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
endif
EXTRAS ?= dev,sweep,docs
INSTALLED := .venv/installed-$(EXTRAS)

.PHONY: run test test-system bench lab baselines book exercises wheelhouse lock lint clean

run: $(INSTALLED)  ## build the environment, execute every notebook on its embedded cohort, say where the results lie
	$(BIN)/python -m gexlib run all --jobs 2

test: $(INSTALLED)  ## everything that pip alone can test; every notebook is executed once, under nbval
	$(BIN)/python -m pytest --nbval-lax --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks tests -m "not system"

test-system: $(INSTALLED)  ## what needs a scheduler, a browser or R; each missing one is skipped with its reason
	$(BIN)/python -m pytest tests -m system

bench: $(INSTALLED)  ## our speeds beside those of other programs (benchmarks/README.md); needs R, glmnet and a quiet machine
	$(BIN)/python benchmarks/lasso_glmnet.py && $(BIN)/python benchmarks/deepnet_population.py
	$(BIN)/python benchmarks/cnn_epoch.py && $(BIN)/python benchmarks/saliency.py
	$(BIN)/python benchmarks/genexnet_step.py --vision && $(BIN)/python benchmarks/radiogenomic_population.py
	$(BIN)/python benchmarks/gene_masking.py && $(BIN)/python benchmarks/gsea_per_patient.py
	$(BIN)/python benchmarks/sweep_overhead.py

lab: $(INSTALLED)  ## open JupyterLab on the index of the notebooks
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/index.ipynb

book: $(INSTALLED)  ## build the site of all notebooks, the glossary, the ledger and the package into docs/_build
	$(BIN)/python docs/build.py

wheelhouse: $(INSTALLED)  ## gather all that a room without a network needs; PLATFORMS="linux macos windows" or all
	$(BIN)/python tests/make_wheelhouse.py $(if $(PLATFORMS),--platforms $(PLATFORMS))

exercises: $(INSTALLED)  ## write notebooks/exercises from notebooks/solutions, without the answers
	$(BIN)/python notebooks/make_exercises.py

baselines: $(INSTALLED)  ## execute the notebooks and replace their kept outputs, results/ and figures/
	$(BIN)/python tests/make_baselines.py

lint: $(INSTALLED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check gexlib tests benchmarks workflow

lock:  ## resolve requirements.lock anew, one for Python 3.11 and 3.12 on Linux, macOS and Windows
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --all-extras \
	  --no-header --no-annotate pyproject.toml --output-file requirements.lock
	rm -rf .venv-lock

$(INSTALLED): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint requirements.lock --editable ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv runs
