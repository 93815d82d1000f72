# Two commands: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that share the tests; each takes about 1.5 GB.
JOBS ?= 2
INSTALLED := $(VENV)/.installed


.PHONY: help demo test lint install clean

help:
	@echo 'make demo     install, then show the method on embedded data'
	@echo 'make test     install, then lint and run the tests'
	@echo 'make install  make $(VENV) with the pinned packages'
	@echo 'JOBS=2        processes for the tests'
	@echo 'PYTHON=...    another interpreter (3.10 or newer)'

$(INSTALLED): setup.py requirements.txt $(wildcard requirements/*.txt)
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(None if v >= (3, 10) else "mmcmcd needs Python 3.10 or newer, \
	but $(PYTHON) is %d.%d; give another one: make PYTHON=python3.11" \
	  % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -e '.[onedl,nyu,test]'
	touch $@

install: $(INSTALLED)

demo: install
	$(BIN)/python tools/demo.py $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Spinning threads of parallel processes cost more than they bring.
test: export OMP_NUM_THREADS ?= 1
test: install lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info mmcmcd/.mim
