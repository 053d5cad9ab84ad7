# Two commands do all set-up: `make run` brings up a site with a sample on it, `make test` passes the tests.
.PHONY: env dev run test unit lint check bench clean dist dist-check dist-lock rpm deb image chart

# The environment with the program in it.
env:
	@packaging/make-env

# The same with what tests and checks need.
dev:
	@packaging/make-env dev

# A site in one process with a sample Deployment, shown live. Ctrl-C stops it; a second run finds everything as it was.
run: env
	@exec .venv/bin/edgesite up --demo $(ARGS)

# In two processes, a file's tests always in one of them: `make test JOBS=0` runs all in one, and stops in pdb.
JOBS ?= 2
# The folder has a short name: sockets below it may have paths of 107 bytes.
test: dev
	@.venv/bin/python tests/peers.py
	@scratch=$$(mktemp -d /tmp/es.XXXX); \
	.venv/bin/python -m pytest -n $(JOBS) --dist loadfile --durations=15 --basetemp="$$scratch" $(ARGS); code=$$?; \
	rm -rf "$$scratch"; exit $$code

# Fast tests without I/O.
unit: dev
	.venv/bin/python -m pytest tests/unit $(ARGS)

lint: dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# Whole sites under seeded faults in virtual time.
check: dev
	.venv/bin/python -m edgesite.testing.simulator --seeds $(or $(SEEDS),200)

bench: dev
	.venv/bin/python -m benchmarks $(ARGS)

# What is shipped, into dist/ARCHITECTURE: wheel, folder, one-file binaries. As root; ARCH=arm64 builds for another machine.
dist: env
	.venv/bin/python packaging/freeze build $(if $(ARCH),--arch $(ARCH))

# Builds it once more and compares every byte.
dist-check: env
	.venv/bin/python packaging/freeze check $(if $(ARCH),--arch $(ARCH))

# Moves the bundle's wheels to their newest versions.
dist-lock: env
	.venv/bin/python packaging/freeze lock

# Packages from what `make dist` left, into dist/packages/ARCHITECTURE: rpm (a dnf repository) and deb.
rpm: env
	.venv/bin/python rpm/build.py $(if $(ARCH),--arch $(ARCH))

deb: rpm
	.venv/bin/python packaging/deb/build.py $(if $(ARCH),--arch $(ARCH))

# Container images from what `make dist` left: dist/ARCHITECTURE/kubeedge-images-ARCHITECTURE.tar.
image: env
	.venv/bin/python packaging/oci $(if $(ARCH),--arch $(ARCH)) $(if $(REPOSITORY),--repository $(REPOSITORY)) $(ARGS)

# The custom resource definitions in the Helm chart, written anew.
chart: env
	.venv/bin/python packaging/helm/crds.py

clean:
	rm -rf .venv build dist .cache *.egg-info
