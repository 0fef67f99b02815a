.DEFAULT_GOAL := help
.PHONY: help demo space test test-slow quality style
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv

RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# Gradio asks for an older Pillow than the one pinned here, so the Space has an environment of its own on top.
SPACE := $(VENV)/space
SPACE_INSTALLED := $(SPACE)/.installed

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "Each installs what it needs into $(VENV) on first use; PYTHON=/path/to/python3 chooses the interpreter."

demo: $(INSTALLED)  ## Train on the built-in benchmark and test on objects never seen; results in outputs/demo.
	$(VENV)/bin/moeclip demo

space: $(SPACE_INSTALLED)  ## Start the Gradio app of examples/space on the tiny model.
	PYTHONPATH=$(CURDIR) $(SPACE)/bin/python examples/space/app.py

test: $(INSTALLED)  ## Run the tests: offline, no GPU.
	$(RUN) -m pytest

test-slow: $(INSTALLED) $(SPACE_INSTALLED)  ## Run the tests that take minutes.
	$(RUN) -m pytest -m "slow and not gpu"

quality: $(INSTALLED)  ## Check lint rules and formatting, change nothing.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

style: $(INSTALLED)  ## Mend what the lint rules and the formatter can mend.
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# The environment: one tested set of versions, this checkout editable with every extra.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is missing or older than 3.11: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --constraint constraints.txt setuptools
	$(RUN) -m pip install --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

$(SPACE_INSTALLED): $(INSTALLED) examples/space/requirements.txt
	$(RUN) -m venv $(SPACE)
	$(RUN) -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$($(SPACE)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/below.pth"
	$(SPACE)/bin/python -m pip install --requirement examples/space/requirements.txt
	touch $@
