# HALO: every target for work on it makes the virtual environment .venv when there is none;
# `install` makes one of its own. All need python3 (3.11 or newer) with its venv module, and the
# package index once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
SECONDS ?= 60
MINUTES ?= 10
SEED ?=
JOBS ?= 2
COUNT ?= 100
RESULTS ?= simulation-results.jsonl
SEEDS ?= 400

# Where `make install` puts things; DESTDIR, if given, stands before each.
PREFIX ?= /opt/halo
SBINDIR ?= /usr/sbin
UNITDIR ?= /etc/systemd/system
OCFDIR ?= /usr/lib/ocf
PROGRAMS := halo halo_manager halo_remote
UNITS := halo.service halo-remote.service
DOCDIR := $(PREFIX)/share/doc/halo
INSTALLED := .installed-by-halo

# Whatever the caller's shell says: thousands of short programs would compile HALO anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-ha test test-hosts chaos fuzz simulate simulate-bar wakes linear mutate model bench check format clean install install-files uninstall

help:
	@echo "make demo    a cluster on this machine loses a host and gets it back"
	@echo "make demo-ha  three managers on this machine; the one that leads is killed in the middle of a failover"
	@echo "make test    all tests"
	@echo "make test-hosts  as root: hosts that lose power, BMCs, real resource agents (6 min)"
	@echo "make chaos   as root: random faults on such hosts for MINUTES ($(MINUTES)), of a new SEED or a given one"
	@echo "make fuzz    random input for all that HALO reads, rogue agents and managers, for MINUTES ($(MINUTES))"
	@echo "make simulate   fresh clusters on a virtual clock for SECONDS ($(SECONDS)), JOBS at a time ($(JOBS))"
	@echo "make simulate-bar   20,000 runs and 10 virtual days, results in RESULTS ($(RESULTS)); goes on where it was stopped"
	@echo "make wakes   leaders that stand still for longer than their lease, COUNT times ($(COUNT)): none may do harm"
	@echo "make linear  clients command and ask three managers during COUNT ($(COUNT)) faults: do all answers fit one order?"
	@echo "make mutate  small mistakes in the deciding code, SEEDS ($(SEEDS)) each: how many are found? RESULTS (mutation-results.jsonl)"
	@echo "make model   every state of the model of the safety core, in larger configurations (the last one takes very long)"
	@echo "make bench   every figure that loopback can show, beside its bar (10 min, a quiet machine)"
	@echo "make check   format, lint and types"
	@echo "make format  put the code into its format"
	@echo "make clean   remove what the other targets made"
	@echo "make install    as root: into PREFIX ($(PREFIX)), for systemd; DESTDIR is honoured"
	@echo "make uninstall  as root: remove that; /etc/halo stays"

$(STAMP): pyproject.toml
	@echo "making the virtual environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python demo/demo.py

demo-ha: $(STAMP)
	@$(BIN)/python demo/ha.py

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

# Mostly waiting, so more workers than there are cores; whoever is done takes over from the others.
test: $(STAMP)
	@$(BIN)/pytest -q -n 4 --dist worksteal $(PYTEST_ARGS)

# The same tests of real hosts that `test` runs as root; a missing part fails here.
test-hosts: $(STAMP)
	@HALO_TEST_REQUIRE_PARTS=1 $(BIN)/pytest -q -n 4 --dist worksteal $(PYTEST_ARGS) tests/hosts

# The schedule is made from the seed, which is printed first.
chaos: $(STAMP)
	@HALO_TEST_REQUIRE_PARTS=1 $(BIN)/python -m tests.hosts.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# The seed is printed first; then all behaviours of rogue peers in an order of that seed. What is led
# by coverage needs atheris, which is not to be had for every Python.
fuzz: SEED := $(or $(SEED),$(shell od -An -N4 -tx4 /dev/urandom | tr -d ' '))
fuzz: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris 2>/dev/null || \
		echo "atheris cannot be installed: nothing is led by coverage"
	@failed=0; $(BIN)/python -m tests.hostile.fuzz --minutes $(MINUTES) --seed $(SEED) || failed=1; \
	HALO_FUZZ_SEED=$(SEED) $(BIN)/pytest -q -n $(JOBS) tests/hostile/test_rogue_agents.py \
		tests/hostile/test_rogue_managers.py && exit $$failed

simulate: $(STAMP)
	@$(BIN)/python -m tests.simulation --seconds $(SECONDS) --jobs $(JOBS)

# Hours of work: the runs first, then ten days (one after the other in each process).
simulate-bar: export HALO_SIMULATION_ORACLES = none
simulate-bar: $(STAMP)
	@failed=0; $(BIN)/python -m tests.simulation --seeds 0..20000 --jobs $(JOBS) --keep-going --no-shrink \
		--results $(RESULTS) || failed=1; \
	$(BIN)/python -m tests.simulation --seeds 0..10 --duration 86400 --sparse --jobs $(JOBS) \
		--keep-going --no-shrink --results $(RESULTS) && exit $$failed

# Needs etcd. About ten seconds each, on a machine that does little else; a busy one needs a longer --lease.
wakes: $(STAMP)
	@$(BIN)/python -m tests.etcd.wakes --count $(COUNT)

# Needs etcd. Some seconds each.
linear: $(STAMP)
	@$(BIN)/python -m tests.etcd.linear --count $(COUNT)

# Many hours for all mutants; goes on where it was stopped.
mutate: RESULTS := mutation-results.jsonl
mutate: $(STAMP)
	@$(BIN)/python -m tests.simulation.mutate --seeds $(SEEDS) --jobs $(JOBS) --results $(RESULTS) --show

# Needs Java and Maven, which fetches the model checker once.
model: $(STAMP)
	@HALO_TEST_REQUIRE_PARTS=1 $(BIN)/python -m tests.model

check: $(STAMP)
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@echo "check: format, lint and types are in order"

format: $(STAMP)
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis simulation-results.jsonl mutation-results.jsonl
	@find tests/test_output -mindepth 1 ! -name .gitkeep -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# PREFIX holds a virtual environment and nothing else, so that its removal is safe. Everything
# else is a link to it, but for the units and the resource agents. May be repeated, to upgrade.
# What root's umask hides from other users would be of no use to them.
install:
	@umask 022 && $(MAKE) --no-print-directory install-files

install-files:
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11 or lacks venv; name another one: make install PYTHON=..." >&2; exit 1; }
	@case "$(PREFIX)" in /*) ;; *) echo "PREFIX must be an absolute path: $(PREFIX)" >&2; exit 1 ;; esac
	@if [ -n "$$(ls -A "$(DESTDIR)$(PREFIX)" 2>/dev/null)" ] && ! [ -e "$(DESTDIR)$(PREFIX)/$(INSTALLED)" ]; then \
		echo "$(DESTDIR)$(PREFIX) is not empty, and not of \`make install\`; choose another PREFIX" >&2; exit 1; fi
	@install -d "$(DESTDIR)$(PREFIX)" "$(DESTDIR)$(SBINDIR)" "$(DESTDIR)$(UNITDIR)" \
		"$(DESTDIR)$(OCFDIR)/resource.d/halo" "$(DESTDIR)$(DOCDIR)" "$(DESTDIR)/etc/halo"
	@touch "$(DESTDIR)$(PREFIX)/$(INSTALLED)"
	@echo "making the virtual environment $(DESTDIR)$(PREFIX) ..."
	@$(PYTHON) -m venv "$(DESTDIR)$(PREFIX)"
	@rm -rf build
	@"$(DESTDIR)$(PREFIX)/bin/python" -m pip install --quiet --disable-pip-version-check \
		--no-compile --no-warn-script-location --root-user-action=ignore .
	@rm -rf build
# With DESTDIR the environment is made in one place and used in another.
	@if [ -n "$(DESTDIR)" ]; then \
		grep -rlIF "$(DESTDIR)$(PREFIX)" "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/pyvenv.cfg" | \
			xargs -r sed -i "s|$(DESTDIR)$(PREFIX)|$(PREFIX)|g"; fi
	@"$(DESTDIR)$(PREFIX)/bin/python" -m compileall -q -f -s "$(DESTDIR)" "$(DESTDIR)$(PREFIX)/lib"
	@for program in $(PROGRAMS); do \
		ln -sfn "$(PREFIX)/bin/$$program" "$(DESTDIR)$(SBINDIR)/$$program" || exit 1; done
	@ln -sfn "$$(cd "$(DESTDIR)$(PREFIX)" && echo lib/python3*/site-packages/halo/share/fence_agents)" \
		"$(DESTDIR)$(PREFIX)/fence_agents"
	@install -m 755 ocf_agents/resource.d/halo/* "$(DESTDIR)$(OCFDIR)/resource.d/halo"
	@for unit in $(UNITS); do \
		sed 's|/usr/sbin/|$(SBINDIR)/|; s|/opt/halo/|$(PREFIX)/|' packaging/systemd/$$unit \
			> "$(DESTDIR)$(UNITDIR)/$$unit" && chmod 644 "$(DESTDIR)$(UNITDIR)/$$unit" || exit 1; done
	@cp -R README.md CHANGELOG.md docs examples packaging "$(DESTDIR)$(DOCDIR)"
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@echo "installed in $(DESTDIR)$(PREFIX); what to do next: $(DOCDIR)/README.md, Install"

# A service that runs would go on without its files, and one that is enabled would fail at boot.
uninstall:
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then for unit in $(UNITS); do \
		if systemctl is-active --quiet $$unit || systemctl is-enabled --quiet $$unit 2>/dev/null; then \
			echo "$$unit is in use; first: systemctl disable --now $$unit" >&2; exit 1; fi; done; fi
	@[ -e "$(DESTDIR)$(PREFIX)/$(INSTALLED)" ] || \
		{ echo "$(DESTDIR)$(PREFIX) is not of \`make install\`; nothing was removed" >&2; exit 1; }
	@for program in $(PROGRAMS); do link="$(DESTDIR)$(SBINDIR)/$$program"; \
		[ "$$(readlink "$$link")" != "$(PREFIX)/bin/$$program" ] || rm "$$link" || exit 1; done
	@for unit in $(UNITS); do rm -f "$(DESTDIR)$(UNITDIR)/$$unit" || exit 1; done
	@for agent in ocf_agents/resource.d/halo/*; do \
		rm -f "$(DESTDIR)$(OCFDIR)/resource.d/halo/$${agent##*/}" || exit 1; done
	@rmdir "$(DESTDIR)$(OCFDIR)/resource.d/halo" 2>/dev/null || true
	@rm -rf "$(DESTDIR)$(PREFIX)"
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@echo "removed; /etc/halo is left as it is"
