# acceld: make, make check, make check-asan, make check-tsan, make fuzz, make lint, make bench, make install.
# Not recursive.  Objects and archives are under build/obj/<variant>/; programs in build/ (or build/<variant>/).
#
# VARIANT: release (default), asan (with UBSan), tsan, fault (fault points built in), faultasan, fuzz, cov.

CC ?= gcc
VARIANT ?= release
PREFIX ?= /usr/local
DESTDIR ?=
WERROR ?=
PKGS := libevent libevent_openssl libevent_pthreads hiredis libcurl json-c yaml-0.1 openssl libzstd zlib libdeflate liblz4
VERSION := $(shell cat VERSION)
# COMMIT.DATE of what is built, as upstream's version line has it.
COMMIT ?= $(shell git log -1 --format=%H.%cd --date=format:%Y%m%d.%H%M 2>/dev/null || echo unknown)

HAVE_ISAL := $(if $(wildcard /usr/include/isa-l.h /usr/include/isa-l/*.h),1,)
ifeq ($(ISAL),0)
HAVE_ISAL :=
endif

O := build/obj/$(VARIANT)
BIN := $(if $(filter release,$(VARIANT)),build,build/$(VARIANT))

CFLAGS_BASE := -std=gnu17 -D_GNU_SOURCE -I. -g -fno-strict-aliasing -fno-common -fstack-protector-strong \
	-Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wno-unused-parameter \
	-Wpointer-arith -Wwrite-strings $(if $(WERROR),-Werror) -DACCEL_VERSION='"$(VERSION)"' \
	$(if $(HAVE_ISAL),-DHAVE_ISAL)
CFLAGS_release := -O2 -D_FORTIFY_SOURCE=2
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DACCEL_FAULTS
CFLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fault := -O2 -D_FORTIFY_SOURCE=2 -DACCEL_FAULTS
CFLAGS_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_cov := -O0 --coverage
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=address,undefined
LDFLAGS_cov := --coverage
CFLAGS_ALL = $(CFLAGS_BASE) $(CFLAGS_$(VARIANT)) $(PKG_CFLAGS) $(CFLAGS)
LDFLAGS_ALL = -pthread -Wl,--as-needed -Wl,-z,relro,-z,now $(LDFLAGS_$(VARIANT)) $(LDFLAGS)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) $(if $(HAVE_ISAL),-lisal) -lpthread -lm

# ---- rooms: sources by name
COMMON := err mem buf str clock env fault log digest secret json stream \
	config settings settings_keys settings_rules settings_write imageref platform storage \
	driver_options target target_tag target_json target_hash rules startup notify \
	loop tls httpframe httpd httpd_conn httpd_listen address url http_message network xfer http \
	reply resp scripts redis task queue_view queue_events queue metrics
WORKER := packet sandbox limits pool out blobat layer resolve listing classify cache cachetag dictionary publish verify \
	convert/convert convert/outcome convert/store convert/targets convert/items convert/reuse convert/layers \
	convert/finish convert/result taskproc \
	oci/descriptor oci/manifest oci/index oci/imageconfig \
	registry/registry registry/challenge registry/token registry/credentials registry/blob registry/upload \
	registry/regerr \
	backend/backend backend/localfs backend/bucket backend/sigv4 backend/osssign \
	codec/codec codec/inflate codec/blocks codec/zstd codec/encode codec/deflate codec/lz4 codec/crc64 codec/member \
	tar/tar_header tar/tar_reader \
	drivers/driver drivers/table drivers/footer drivers/priority drivers/sparse drivers/tocrecord drivers/toc drivers/tocread \
	drivers/tocwrite drivers/toccompare \
	drivers/lazytar drivers/lazycheck drivers/zstdcheck drivers/estargz drivers/zstdchunked drivers/tarsplit drivers/rollsum \
	drivers/podtar drivers/nydus drivers/nydusdict \
	rafs/rafs_tree rafs/rafs_layout rafs/rafs_emit rafs/rafs_read rafs/rafs_check rafs/rafs_merge rafs/rafs_blob \
	rafs/rafs_pack rafs/rafs_dict rafs/rafs_restart rafs/rafs_zran rafs/blake3 rafs/blake3_simd rafs/crc32c
SUPERVISOR := main supervisor slots asks startpacket workermetrics probes
API := main routes counters answer webhook create list show health waiters auth rate
CTL := main cmd_task cmd_convert cmd_check cmd_inspect cmd_layer cmd_layer_merge cmd_config cmd_health cmd_rules \
	cmd_version api_client tasklist connect progress
ACCELD := main child redis_server

sources = $(addprefix $(1)/,$(addsuffix .c,$(2)))
objs = $(patsubst %.c,$(O)/%.o,$(1))
COMMON_SRC := $(call sources,common,$(COMMON))
WORKER_SRC := $(call sources,worker,$(WORKER))
SUPERVISOR_SRC := $(call sources,worker,$(SUPERVISOR))
API_SRC := $(call sources,api-server,$(API))
CTL_SRC := $(call sources,accelctl,$(CTL))
ACCELD_SRC := $(call sources,acceld,$(ACCELD))
LIBCOMMON := $(O)/libcommon.a
LIBWORKER := $(O)/libworker.a
LIBAPI := $(O)/libapi.a

PROGRAMS := $(addprefix $(BIN)/,accelctl acceld accel-api-server accel-worker)

all: $(PROGRAMS) $(LIBCOMMON) $(LIBWORKER)

$(O)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(O)/common/scripts.o: $(wildcard common/queue/*.lua)
$(O)/common/startup.o: CFLAGS_BASE += -DACCEL_COMMIT='"$(COMMIT)"'

$(LIBCOMMON): $(call objs,$(COMMON_SRC))
$(LIBWORKER): $(call objs,$(WORKER_SRC))
$(LIBAPI): $(call objs,$(filter-out api-server/main.c,$(API_SRC)))
%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

define program
$(BIN)/$(1): $(call objs,$(2)) $(3)
	@mkdir -p $$(@D)
	$$(CC) $$(LDFLAGS_ALL) -o $$@ $$^ $$(PKG_LIBS)
endef
$(eval $(call program,accelctl,$(CTL_SRC),$(LIBWORKER) $(LIBCOMMON)))
$(eval $(call program,acceld,$(ACCELD_SRC),$(LIBCOMMON)))
$(eval $(call program,accel-api-server,api-server/main.c,$(LIBAPI) $(LIBCOMMON)))
$(eval $(call program,accel-worker,$(SUPERVISOR_SRC),$(LIBWORKER) $(LIBCOMMON)))

# ---- tests
UNIT := $(patsubst tests/unit/%.c,$(O)/unit/%,$(wildcard tests/unit/test_*.c))
$(O)/unit/%: $(O)/tests/unit/%.o $(LIBAPI) $(LIBWORKER) $(LIBCOMMON)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $^ -lcmocka $(PKG_LIBS)
.PRECIOUS: $(O)/tests/unit/%.o $(O)/tests/fuzz/%.o

# Fuzz targets: with clang's fuzzer (VARIANT=fuzz), or as plain replayers of their corpus.
FUZZ := $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_MAIN = $(if $(filter fuzz,$(VARIANT)),-fsanitize=fuzzer,$(O)/tests/fuzz/replay.o)
$(O)/fuzz/%: $(O)/tests/fuzz/%.o $(LIBAPI) $(LIBWORKER) $(LIBCOMMON) $(if $(filter fuzz,$(VARIANT)),,$(O)/tests/fuzz/replay.o)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $(filter-out %/replay.o,$^) $(FUZZ_MAIN) $(PKG_LIBS)

# Programs that integration tests drive.
DRIVERS := $(patsubst tests/integration/%.c,$(O)/integration/%,$(wildcard tests/integration/*.c))
$(O)/integration/%: $(O)/tests/integration/%.o $(LIBWORKER) $(LIBCOMMON)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(PKG_LIBS)

tests-built: all $(UNIT) $(FUZZ) $(DRIVERS)

check: all $(UNIT) $(FUZZ) $(DRIVERS)
	$(MAKE) VARIANT=fault all
	tests/run.sh --variant $(VARIANT) unit fuzz integration

unit: $(UNIT)

check-unit: $(UNIT)
	tests/run.sh --variant $(VARIANT) unit

check-asan:
	$(MAKE) VARIANT=asan tests-built
	tests/run.sh --variant asan unit fuzz integration-short

check-tsan:
	$(MAKE) VARIANT=tsan tests-built
	tests/run.sh --variant tsan unit-threads

fuzz:
	$(MAKE) CC=clang VARIANT=fuzz fuzz-built
	tests/fuzz/run.sh $(or $(SECONDS_EACH),5)
fuzz-built: $(FUZZ)

# What takes longer than CI has: full fuzzing, a long outage, a hundred kills.
nightly: all
	$(MAKE) fuzz SECONDS_EACH=60
	$(MAKE) VARIANT=fault all
	tests/integration/outages 60
	tests/integration/chaos 100
	tests/integration/chaos 100 - acceld
	tests/integration/runs-again 10
	tests/integration/late-put 20
	tests/integration/late-put 70
	tests/accept/nydus-roundtrip 200

# Beside the peers that are installed; STRICT=1: a missing one is a failure.
bench: all bench-programs
	tests/bench/bench $(if $(filter 1,$(STRICT)),--strict) $(BENCH_FORMATS)

# ---- programs of the benchmarks: tests/bench/NAME.c
BENCH := $(patsubst tests/bench/%.c,$(BIN)/bench/%,$(wildcard tests/bench/*.c))
$(BIN)/bench/%: $(O)/tests/bench/%.o $(LIBWORKER) $(LIBCOMMON)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(PKG_LIBS)
.PRECIOUS: $(O)/tests/bench/%.o
bench-programs: $(BENCH)

bench-queue: $(BIN)/accel-api-server $(BIN)/bench/queue
	tests/bench/queue.sh

model:
	tests/models/run.sh

lint:
	scripts/lint.sh

clean:
	rm -rf build

install: all
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	for m in $$(find accelctl acceld api-server worker deploy -name '*.[158]'); do \
		install -D -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$$(basename $$m); done

-include $(shell find $(O) -name '*.d' 2>/dev/null)
.PHONY: all unit check check-unit check-asan check-tsan fuzz fuzz-built lint clean install tests-built bench bench-programs \
	bench-queue model nightly
.DELETE_ON_ERROR:

print-cflags:
	@echo $(CFLAGS_ALL)
.PHONY: print-cflags
