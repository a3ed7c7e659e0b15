# `make` lists what can be made. PYTHON=... chooses the Python of .venv, else local/find_python.sh does.
export PYTHON
FILES ?= 500
PORT ?= 8123

# The stamp names the chosen Python; without a choice any .venv will do.
made_by = .venv/made-by-$(subst /,-,$(or $(PYTHON),default))
venv = $(if $(PYTHON),$(made_by),$(firstword $(wildcard .venv/made-by-*) $(made_by)))
python = .venv/bin/python
pin = $(python) -m uv pip compile --quiet --no-annotate --custom-compile-command 'make lock'
python_with = $(python) -m uv run --quiet --no-project --python $(python) --with
audit = $(python) -m uv tool run pip-audit@2.10.1 --disable-pip --no-deps --progress-spinner off
mutmut = $(python_with) mutmut==3.8.1 mutmut

.PHONY: help demo local screenshot test venv zips release bench simulate soak mutants advisories coverage format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(venv) ## Run the whole pipeline on this machine and draw demo.png (FILES=5000: a larger burst)
	./zipper.sh
	$(python) -m local.demo --burst $(FILES)

local: $(venv) ## Run the pipeline until Ctrl-C, for your own uploads, with a page (PORT=8123, and the next)
	./zipper.sh
	$(python) -m local.live --port $(PORT)

screenshot: $(venv) ## Redraw docs/page.png: the page of `make local` in a headless Chromium
	./zipper.sh
	$(python) -m local.screenshot

test: $(venv) ## Run all tests, type checks and linters
	$(python) -m pytest --numprocesses auto

venv: $(venv) ## Make .venv with ddg-ops and everything that the other targets need

zips: ## Make the functions' zips for Terraform
	./zipper.sh

release: ## Make dist/: the two zips and their SHA-256, as GitHub attaches them to a tag
	./zipper.sh
	rm -rf dist && mkdir dist && cp ddg_*.zip dist
	cd dist && { sha256sum ddg_*.zip 2>/dev/null || shasum -a 256 ddg_*.zip; } >SHA256SUMS # macOS has shasum
	cat dist/SHA256SUMS

bench: $(venv) ## Compare the submitter with other ways (BENCH=--quick, or other sizes and latencies)
	$(python) -m local.bench $(BENCH)

simulate: $(venv) ## Compute costs and the effect of outages, and write docs/scaling.md
	$(python) -m local.simulate

soak: $(venv) ## Inject faults for many thousand steps, and account for every file (STORIES=2000: longer)
	STORIES=$(or $(STORIES),300) $(python) -m pytest tests/test_ledger.py --quiet --capture=no

mutants: $(venv) ## Break the functions in thousands of small ways; fail if tests notice less than 95 %
	rm -rf mutants
	$(mutmut) run 'ddg_*' # by name: then it fails if a test's id changes between runs
	$(mutmut) results
	$(mutmut) export-cicd-stats
	$(python) -c 'import json; n = json.load(open("mutants/mutmut-cicd-stats.json")); \
	  share = n["killed"] / n["total"]; print(f"{share:.1%} noticed"); exit(share < 0.95)'

advisories: $(venv) ## Look for known vulnerabilities of the pinned packages
	$(audit) --requirement requirements.txt
	$(audit) --requirement local/requirements.txt

coverage: $(venv) ## Run the tests and list the lines and branches that they miss
	$(python) -m pytest --numprocesses auto --cov

format: $(venv) ## Format the code
	$(python) -m ruff check --fix
	$(python) -m ruff format
	if command -v terraform >/dev/null; then terraform fmt -recursive; fi

lock: $(venv) ## Pin the newest packages; requirements.in sets the version of datadog
	rm -rf .venv/pure
	$(python) -m pip download -qq --dest .venv/pure --requirement requirements.in --only-binary=:all: \
	  --platform any --implementation py --abi none --python-version 3.13
	$(pin) --no-index --find-links .venv/pure --generate-hashes --python-version 3.13 \
	  --output-file requirements.txt requirements.in
	$(pin) --only-binary :all: --universal --upgrade --python-version 3.11 \
	  --output-file local/requirements.txt local/requirements.in

clean: ## Remove all that was made here
	rm -rf .venv .zipper.* *.zip dist mutants demo.png local.outputs.json .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(venv): requirements.txt local/requirements.txt
	local/make_venv.sh
	touch $@
