# TorVM. `make help` lists the targets.

ARCH ?= $(shell dpkg --print-architecture 2>/dev/null || echo amd64)
BUILD ?= build
DIST ?= dist
PREFIX ?= /usr
DESTDIR ?=
SHELL = /bin/sh

.PHONY: all help deps controller vm demo test test-quick test-leak test-boot \
	test-debian12 test-debian13 bench fuzz lint format install uninstall clean distclean

all: controller

help:
	@echo 'make              build the controller (torvm, torvm-broker, torvmd)'
	@echo 'make vm           build the VM image into $(DIST)/vm'
	@echo 'sudo make demo    show TorVM at work on a private Tor network'
	@echo '                  (DEMO_KEEP=1 leaves it up to play with)'
	@echo 'sudo make test    run every test; sudo make test-quick the short ones'
	@echo 'sudo make test-leak  every way out in every state, and random faults'
	@echo '                  (SEED=, WALKS=, SHARD=I/N, ONLY=, RESUME=1)'
	@echo 'sudo make test-boot  the units in a real boot (needs systemd-container)'
	@echo 'sudo make test-debian13  make test in a Debian 13 of its own; also 12'
	@echo 'sudo make bench   measure against native Tor in the same network'
	@echo 'make fuzz         fuzz each parser for FUZZ_SECONDS (60)'
	@echo 'make lint         format, clang-tidy, cppcheck, dependency direction'
	@echo 'make format       rewrite the sources with clang-format'
	@echo 'sudo make install install below $(PREFIX); uninstall removes it'
	@echo 'make clean        remove what was built; distclean also downloads'
	@echo
	@echo 'ARCH=amd64|arm64  DEBIAN_MIRROR=URL  BUILD=DIR  DESTDIR=DIR'

deps:
	@scripts/install-deps all

$(BUILD)/build.ninja:
	@scripts/install-deps build
	meson setup $(BUILD)

controller: $(BUILD)/build.ninja
	ninja -C $(BUILD)

vm: $(BUILD)/build.ninja
	@ninja -C $(BUILD) guest/init/init
	guest/image/build-image --arch $(ARCH) --init $(BUILD)/guest/init/init \
		--out $(DIST)/vm

demo: deps controller vm
	tests/demo/demo

test: deps
	scripts/run-tests

test-quick: deps
	scripts/run-tests --quick

test-leak: deps controller vm
	tests/leak/run $(if $(ONLY),--only $(ONLY)) $(if $(RESUME),--resume)

test-boot: deps controller vm
	tests/boot/boot-test.py

test-debian12 test-debian13:
	scripts/in-debian $(subst test-debian,,$@) make test

bench: deps controller vm
	tests/bench/bench
	tests/netns/layers-bench.py build/tests/netns

fuzz: deps
	scripts/run-fuzz

lint: controller
	scripts/lint

format:
	find src guest tests -name '*.[ch]' -exec clang-format-19 -i {} +

install: controller vm
	DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild
	install -d $(DESTDIR)$(PREFIX)/lib/torvm/vm
	install -m 644 $(DIST)/vm/* $(DESTDIR)$(PREFIX)/lib/torvm/vm/

uninstall:
	packaging/linux/uninstall

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-fuzz $(DIST)

distclean: clean
	rm -rf build-cache build-debian*
