# Everything a reader or a contributor runs. Each target installs what it needs into .venv first,
# and only when pyproject.toml or constraints.txt have changed since.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
ON_ALL_CORES := --numprocesses auto --dist worksteal
DIST ?= dist
NAME := network-in-network
HOSTS ?= colab kaggle

.DEFAULT_GOAL := help
.PHONY: help book test quick lint notebook lab record kit zip wheel hosted clean distclean constraints
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# Images come before the pages: on a page the progress of a download would be a warning.
# A failed build has read its sources: with its memory the next build would find nothing to warn of.
book: $(VENV)/.book ## build the book into _build/html; a warning is an error
	@tools/system_packages.sh dataset-fashion-mnist
	@$(BIN)/python -m ninlab.data_files >/dev/null
	$(BIN)/jupyter-book build -n -W --keep-going . || { rm -rf _build/.doctrees; exit 1; }

test: $(VENV)/.test book ## run all tests, the built pages in a browser among them
	@tools/system_packages.sh chromium
	@echo "== all tests, side by side on all cores: about 10 minutes on two"
	$(BIN)/python -m pytest $(ON_ALL_CORES) $(ARGS)

quick: $(VENV)/.test ## run the tests that are not slow: no book, no browser, two minutes on two cores
	@tools/system_packages.sh dataset-fashion-mnist
	$(BIN)/python -m pytest tests -m "not slow and not browser" $(ON_ALL_CORES) $(ARGS)

lint: $(VENV)/.dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff format --check --config chapters/ruff.toml index.ipynb
	$(BIN)/mypy

notebook: $(VENV)/.test ## run one chapter as a reader runs it, in a kernel of its own
	$(BIN)/python -m pytest --nbmake chapters/calculator.ipynb

lab: $(VENV)/.lab ## open the chapters in JupyterLab
	@tools/system_packages.sh dataset-fashion-mnist
	$(BIN)/jupyter lab chapters $(ARGS)

record: $(VENV)/.book ## carry out the planned runs: make record ARGS="--budget-seconds 600"
	@tools/system_packages.sh dataset-fashion-mnist
	$(BIN)/python -m ninlab record $(ARGS)

kit: $(VENV)/.book ## pack what a GPU machine without a network needs to record: dist/gpu
	@tools/system_packages.sh dataset-fashion-mnist
	$(BIN)/python tools/gpu_kit.py $(DIST)/gpu

zip: book ## pack the built book for reading without a network: dist/network-in-network.zip
	@rm -rf $(DIST)/$(NAME) $(DIST)/$(NAME).zip
	@mkdir -p $(DIST) && cp -r _build/html $(DIST)/$(NAME)
	cd $(DIST) && $(PYTHON) -m zipfile -c $(NAME).zip $(NAME)
	@rm -r $(DIST)/$(NAME)

wheel: | $(BIN)/python ## build what a reader uploads to Colab or Kaggle: dist/ninlab-VERSION-py3-none-any.whl
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(DIST) .

# Each in a .hosts/HOST of its own: 7 GB and 10 minutes, so .ci/run leaves it out.
hosted: ## run every notebook on what Colab and Kaggle bring: make hosted HOSTS=kaggle
	@tools/system_packages.sh dataset-fashion-mnist
	@for host in $(HOSTS); do .ci/hosted $$host || exit 1; done

constraints: $(VENV)/.dev ## find the newest versions that fit together, for constraints.txt
	$(BIN)/python tools/update_constraints.py

clean: ## remove what was built, and the caches
	rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## remove .venv and .hosts too
	rm -rf $(VENV) .hosts

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "ninlab needs Python 3.11 to 3.13; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@PYTHON=$(PYTHON) tools/system_packages.sh python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One stamp for each extra: .venv/.test says that ninlab[test] is installed. An extra that holds others
# makes theirs, too: pip would take its time to find that nothing is missing.
dev_holds := test lab book
test_holds := lab book
lab_holds := book

$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing ninlab[$*] and what it needs; with torch this takes minutes the first time"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$*]'
	@touch $@ $(addprefix $(VENV)/.,$($*_holds))
