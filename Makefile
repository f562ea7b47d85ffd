# Thin names for the commands in README.md and .ci/run. Everything needs only Python 3.11 or newer.
PYTHON ?= python3
BIN = .venv/bin

# Python keeps what it has compiled, even where the machine's setting forbids it: otherwise each of the many
# processes that tests start would compile the whole package.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-learning nightly reliability bench bench-methods bench-smoke bench-compare check clean

demo: .venv/ready
	$(BIN)/barlow pretrain shapes -c small_w_mse --steps 1000 --out runs/demo --overwrite \
	  --encoder.stages last --encoder.whiten null
	$(BIN)/barlow evaluate runs/demo
	@echo "results: runs/demo/evaluation/results.json   views: runs/demo/views.png   encoder: runs/demo/encoder"

test: .venv/ready
	$(BIN)/python -m pytest -n 2

test-learning: .venv/ready
	$(BIN)/python -m pytest -m "learning and not nightly"

# What is promised in docs/exactness.md, measured whole; the log replaces the last one only when all is through.
# Some folders run whole, as their fast tests are recorded, too; of all others what is marked nightly.
WHOLE = tests/objectives tests/optim tests/equivalence tests/contracts/test_methods.py tests/faults tests/learning tests/data tests/pages tests/report

nightly: .venv/ready
	rm -f results/nightly.partial
	BARLOW_NIGHTLY_LOG=$(CURDIR)/results/nightly.partial $(BIN)/python -m pytest -m "not learning" $(WHOLE)
	$(BIN)/python -m pytest -m "nightly and not learning" $(WHOLE:%=--ignore=%) --ignore=tests/mutations tests
	BARLOW_NIGHTLY_LOG=$(CURDIR)/results/nightly.partial $(BIN)/python -m pytest -n 2 -m "not learning" tests/mutations
	$(BIN)/python -m pytest -m learning
	mv results/nightly.partial results/nightly.jsonl
	$(BIN)/python experiments/exactness.py

# Faults are injected, what became of them is kept, and docs/reliability.md shows it.
reliability: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python experiments/reliability.py run

# What is promised in docs/performance.md: twenty minutes on two quiet cores, and the page's tables from the lines.
BENCHMARKS = views_from_jpeg views_in_memory objectives products knn search logistic svm few_labels embedding startup checking step costs damage

bench: .venv/ready
	@failed=0; for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || failed=1; done; \
	  $(BIN)/python experiments/performance.py; exit $$failed

# A step of every method with a bank, clusters, patches or a made-up label, and a clustering: half an hour more.
BENCHMARKS_OF_METHODS = step_methods kmeans

bench-methods: .venv/ready
	@failed=0; for name in $(BENCHMARKS_OF_METHODS); do $(BIN)/python benchmarks/$$name.py || failed=1; done; \
	  $(BIN)/python experiments/performance.py; exit $$failed

# Whether each program still runs, and nothing takes ten times as long as promised. So two may share the machine.
bench-smoke: .venv/ready
	@printf '%s\n' $(BENCHMARKS) kmeans | OMP_NUM_THREADS=1 xargs -P 2 -I NAME $(BIN)/python benchmarks/NAME.py --smoke

# This checkout against an older one: make bench-compare OLD=../before (git worktree add ../before COMMIT).
bench-compare: .venv/ready
	$(BIN)/python benchmarks/compare.py $(OLD)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# uv finds local wheels by UV_FIND_LINKS; compiled bytecode halves every later start of torch.
.venv/ready: requirements.txt constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q uv
	UV_FIND_LINKS="$${UV_FIND_LINKS-$$PIP_FIND_LINKS}" $(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode -r requirements.txt
	touch .venv/ready

clean:
	rm -rf .venv runs
