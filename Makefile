# `make` alone lists the targets.

PLUGINS     := bridge host-local flannel loopback portmap
PACKAGES    := $(patsubst bridge,cni-bridge,$(PLUGINS))
CNI_BIN_DIR ?= /opt/cni/bin

# One binary that is every plugin, chosen by the name it is called by; without it, a binary each.
MULTI_CALL  := $(wildcard crates/cni-plugins/Cargo.toml)

# The commands that the demo and the tests call; tests/setup/packages installs what is missing.
DEMO_NEEDS  := cc ip bridge ss ping iptables socat nsenter unshare setpriv
TEST_NEEDS  := $(DEMO_NEEDS) nft conntrack /usr/lib/cni/bridge
VM_NEEDS    := $(TEST_NEEDS) qemu-system-x86_64 depmod cpio busybox

# What runs pods through containerd or podman: Debian's Python, whose modules these are, not one of the machine's own.
PYTHON           := /usr/bin/python3 -B
RUNTIME_NEEDS    := /usr/bin/python3 runc busybox ip iptables nft nsenter unshare
CONTAINERD_NEEDS := $(RUNTIME_NEEDS) containerd protoc $(addprefix /usr/lib/python3/dist-packages/,google/protobuf grpc)
PODMAN_NEEDS     := $(RUNTIME_NEEDS) podman conmon

# Namespaces need root: as somebody else, only what works in them runs by sudo.
AS_ROOT     := $(if $(filter-out 0,$(shell id -u)),sudo -E)
RUNNER      := $(if $(AS_ROOT),--config "target.'cfg(unix)'.runner='$(AS_ROOT)'")

RELEASE      = target/$(or $(CARGO_BUILD_TARGET),$(shell rustc --print host-tuple))/release

export CARGO_TARGET_DIR := $(CURDIR)/target
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin
unexport CNI_PATH NETCONFPATH CNITOOL # what is shown and tested here is what was built here

.PHONY: help build build-separate demo test test-here test-vlan test-containerd test-podman test-dist check bench dist install uninstall clean rust

help:
	@sed -n 's/^\([a-z-]*\):.* ## /  make \1\t/p' Makefile | expand -t 24

build: rust ## build the plugins into target/cni/, ready to be a CNI_PATH
ifdef MULTI_CALL
	cargo build --release -p cni-plugins
	mkdir -p target/cni
	for name in $(PLUGINS); do ln -f $(RELEASE)/cni-plugins target/cni/$$name || exit; done
else
	cargo build --release $(PACKAGES:%=-p %)
	mkdir -p target/cni
	ln -f $(PLUGINS:%=$(RELEASE)/%) target/cni/
endif

build-separate: rust ## build a binary for each plugin into target/cni-separate/
	cargo build --release $(PACKAGES:%=-p %)
	mkdir -p target/cni-separate
	ln -f $(PLUGINS:%=$(RELEASE)/%) target/cni-separate/

demo: ## show two flannel nodes at work, in namespaces of their own (installs what it lacks)
	@tests/setup/packages $(DEMO_NEEDS)
	@$(MAKE) --no-print-directory build target/tools/cnitool
	$(AS_ROOT) tests/demo/demo

test: test-here test-vlan ## run all tests on two kernels, in namespaces of their own (installs what they lack)

# VLANs need a kernel that filters them, which not every one does: `make test-vlan` has one.
test-here: ## run the unit tests, and the suite both ways, on this machine's kernel only
	@tests/setup/packages $(TEST_NEEDS)
	@$(MAKE) --no-print-directory build $(if $(MULTI_CALL),build-separate) target/tools/cnitool target/tools/reference
	cargo test --no-fail-fast $(RUNNER) --workspace --exclude tests
	E2E_ELSEWHERE=vlan CNI_PATH=$(CURDIR)/target/cni cargo test --no-fail-fast $(RUNNER) -p tests
ifdef MULTI_CALL
	E2E_ELSEWHERE=vlan CNI_PATH=$(CURDIR)/target/cni-separate cargo test --no-fail-fast $(RUNNER) -p tests
endif

# An older kernel than most, and one that filters VLANs; emulated, so it takes its time. TESTS=vlan:: runs only those.
test-vlan: ## run the suite under Debian's stock kernel, in an emulated machine
	@tests/setup/packages $(VM_NEEDS)
	@$(MAKE) --no-print-directory build target/tools/cnitool target/tools/reference
	binary=$$(cargo test --no-run -p tests --test e2e --message-format=json-render-diagnostics | \
		sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') && test -n "$$binary" && \
	$(AS_ROOT) tests/vm/stock-kernel env CI=true E2E_SLOW=20 CNI_PATH=$(CURDIR)/target/cni "$$binary" $(TESTS)

test-containerd: ## have containerd, Debian's and its newest, run pods through conf/10-flannel.conflist
	@tests/setup/packages $(CONTAINERD_NEEDS)
	@$(MAKE) --no-print-directory build
	tests/runtime/get-containerd
	$(AS_ROOT) $(PYTHON) tests/runtime containerd
	$(AS_ROOT) $(PYTHON) tests/runtime containerd --containerd target/containerd/usr/bin --status

test-podman: ## have podman run containers through conf/10-flannel.conflist
	@tests/setup/packages $(PODMAN_NEEDS)
	@$(MAKE) --no-print-directory build
	$(AS_ROOT) $(PYTHON) tests/runtime podman

test-dist: rust ## pack the release twice, in different places, compare, and look into it
	tests/release/reproducible $(PLUGINS)

check: rust ## check the format, and the code with clippy: a warning is an error
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

bench: ## measure the plugins, the reference, and the kernel's own part
	@tests/setup/packages $(TEST_NEEDS)
	@$(MAKE) --no-print-directory build build-separate
	cargo build --release -p cni-bench
	cargo run --release $(RUNNER) -p cni-bench -- $(BENCH)

dist: rust ## pack a release, with its checksum, into target/dist/
	tests/release/pack target/dist $(PLUGINS)

# Beside the old ones first, then renamed over them: a plugin that is running is not disturbed.
install: | target/cni ## install what is in target/cni/ into $(DESTDIR)$(CNI_BIN_DIR)
	mkdir -p "$(DESTDIR)$(CNI_BIN_DIR)"
	new=$$(mktemp -d "$(DESTDIR)$(CNI_BIN_DIR)/.new-XXXXXX") && trap 'rm -rf "$$new"' EXIT && \
	cp --preserve=links,mode $(PLUGINS:%=target/cni/%) "$$new/" && \
	chmod 755 "$$new"/* && sync "$$new"/* && \
	mv -f "$$new"/* "$(DESTDIR)$(CNI_BIN_DIR)/"

uninstall: ## remove our plugins from $(DESTDIR)$(CNI_BIN_DIR), and nothing else
	rm -f $(PLUGINS:%="$(DESTDIR)$(CNI_BIN_DIR)/%")

clean: ## remove target/
	rm -rf target

rust:
	@tests/setup/rust

target/cni:
	$(MAKE) build

target/tools/cnitool: tests/setup/cnitool
	@tests/setup/cnitool

target/tools/reference: tests/setup/reference
	@tests/setup/reference
