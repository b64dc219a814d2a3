# calomu: `make` builds the program, `make help` lists the rest.  GNU make.
CFLAGS  ?= -O2 -g
WARN     = -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wundef -Wcast-qual
STD      = -std=c99 -ffp-contract=off -I.
B       ?= build
REF     ?=
PYTHON  ?= python3
PEER_PYTHON ?=

# What this machine has: OpenMP, libhdf5.  `make OPENMP= HDF5=` builds without.
OPENMP  := $(shell echo 'int main(void) { return 0; }' \
             | $(CC) -fopenmp -include omp.h -x c - -o /dev/null 2>/dev/null && echo -fopenmp)
HDF5    := $(shell pkg-config --exists hdf5 2>/dev/null && pkg-config --cflags --libs hdf5)
ALL_C    = $(CPPFLAGS) $(STD) $(WARN) $(CFLAGS) $(OPENMP)
LINK     = $(CC) $(CFLAGS) $(OPENMP) $(LDFLAGS)

VERBS    = main messages options progress files threads csv rows signals topics info import \
           features train train_run train_log train_files train_agree predict evaluate plot \
           plot_verb model_import model_join bench bench_turns bench_jobs bench_profile perturb \
           sets simulate_verb simulation/simulate simulation/electronics simulation/copula \
           scan least_squares scan_fit scan_fit_verb
OBJECTS  = $(B)/tools/simulation
SHARED   = $(patsubst %,$(B)/tools/%.o,messages options progress files signals csv rows)
TESTS    = device golden_device cuda engine ops sums network golden files features train eval \
           model blocks lists plain api simulate tool rows \
           scanfit scan windows
COMMANDS = cli cli_output cli_import cli_h5 cli_plot cli_evaluate cli_model cli_train \
           cli_bench cli_simulate cli_files cli_cuda cli_scanfit cli_scan
LONG     = cli_install cli_python
SCRIPTS  = readme reading cli_torch aarch64 bits $(COMMANDS) determinism header symbols undefined
PROGRAMS = calomu $(if $(HDF5),calomu-import-h5)

all: $(PROGRAMS) $(B)/libcalomu.a
	@echo "built: $(PROGRAMS), $(B)/libcalomu.a with $(CC);" \
	  "OpenMP: $(if $(OPENMP),yes,no); libhdf5: $(if $(HDF5),yes,no (no calomu-import-h5));" \
	  "gnuplot: $$(command -v gnuplot >/dev/null && echo yes || echo 'no (plots are scripts)')"

help:
	@echo "make               calomu, $(B)/libcalomu.a; with libhdf5 calomu-import-h5"
	@echo "make test          all tests; ends with a line 'N passed, N failed, N skipped'"
	@echo "make test-long     what takes longer: install, CMake, the programs of tools/examples"
	@echo "make test REF=DIR  the same with the reference folder (golden, geant4, oracle)"
	@echo "make install PREFIX=DIR DESTDIR=DIR LIB=lib   program, libraries, header, manual page,"
	@echo "                   completions, calomu.pc, CMake package; make uninstall"
	@echo "make demo          the main job on GEANT4 muons in testdata: a minute"
	@echo "make bench         speed against targets: $(B)/bench.csv; against PyTorch with"
	@echo "                   REF=DIR, against the newest torch and onnxruntime with"
	@echo "                   PEER_PYTHON=FILE"
	@echo "make bench DEVICE=cuda  the same on a GPU, with MATH=fast on its tensor cores"
	@echo "make bench-check   the same, compared with tests/bench.csv: fails at -15%"
	@echo "make aloud         $(B)/aloud MODEL DATA [NUMBER]: a muon, layer by layer"
	@echo "make scaling       cost per muon by batch, hits, cells: testdata/scaling.svg"
	@echo "make physics REF=DIR  calomu simulate side by side with GEANT4"
	@echo "make matrix        compilers x flags x machines: equal bits, or told why not;"
	@echo "                   INSTALL=1 gets compilers and emulators first"
	@echo "make mutants       planted one-line bugs: each must make a test fail"
	@echo "make sanitize tsan valgrind   the tests under the sanitizers of addresses and"
	@echo "                   undefined behaviour; a subset under that of threads; short"
	@echo "                   runs under valgrind"
	@echo "make cuda          the program calomu for NVIDIA GPUs; ARCHS=\"80 90\": some only"
	@echo "make test-cuda     its kernels on the GPU against the processor; needs a GPU"
	@echo "make testdata REF=DIR   remakes testdata from the reference folder"
	@echo "make clean         variables: CC CFLAGS OPENMP= HDF5= B=folder NVCC ARCHS"

calomu: $(B)/internals.o $(VERBS:%=$(B)/tools/%.o)
	$(LINK) -o $@ $^ -lm

calomu-import-h5: $(B)/calomu.o $(B)/tools/import_h5.o $(SHARED)
	$(LINK) -o $@ $^ $(HDF5) -lm

$(B)/libcalomu.a: $(B)/calomu.o
	$(AR) rcs $@ $^

# The engine for programs and plugins of others: no name but calomu_* leaves it.
$(B)/calomu.o: calomu.c calomu.h | $(OBJECTS)
	$(CC) $(ALL_C) -fPIC -c -o $@ calomu.c

# The same with its internals, for the tests, cuda/ and the benchmark; and in double, for gradients
# and golden numbers.
$(B)/internals.o $(B)/calomu_double.o: calomu.c calomu.h | $(OBJECTS)
	$(CC) $(ALL_C) -DCALOMU_INTERNALS $(if $(findstring double,$@),-DCALOMU_REAL=double) \
	  -c -o $@ calomu.c

$(B)/tools/%.o: tools/%.c calomu.h $(wildcard tools/*.h tools/simulation/*.h) | $(OBJECTS)
	$(CC) $(ALL_C) -c -o $@ $<

$(B)/tools/import_h5.o: tools/import_h5.c calomu.h tools/calomu_tool.h tools/rows.h | $(OBJECTS)
	$(CC) $(ALL_C) $(filter -I% -D%,$(HDF5)) -c -o $@ $<

$(B)/test_%: tests/test_%.c tests/test.h tests/test_net.h calomu.h $(B)/internals.o
	$(CC) $(ALL_C) -I. -DCALOMU_INTERNALS -o $@ $< $(B)/internals.o -lm $(LDFLAGS)

$(B)/test_simulate: $(wildcard tools/simulation/*.[ch])
$(B)/test_tool: $(patsubst %,tools/%.c,messages files signals threads) tools/calomu_tool.h
$(B)/test_scan: $(wildcard tools/simulation/*.[ch])
$(B)/test_scanfit: tools/least_squares.c tools/least_squares.h
$(B)/test_rows: tools/rows.c tools/rows.h tools/calomu_tool.h

# The CUDA kernels as C; fused products must be instructions, or they take minutes.
$(B)/emulated.o: $(wildcard cuda/*.h) cuda/emulated.c calomu.h | $(OBJECTS)
	$(CC) $(ALL_C) -O3 -march=native -c -o $@ cuda/emulated.c

EMULATED = tests/test.h tests/test_net.h $(B)/internals.o $(B)/emulated.o
$(B)/test_cuda $(B)/test_device $(B)/test_lists: $(B)/test_%: tests/test_%.c $(EMULATED)
	$(CC) $(ALL_C) -o $@ $< $(filter %.o,$^) -lm $(LDFLAGS)

$(B)/test_golden_device: tests/test_golden.c $(EMULATED)
	$(CC) $(ALL_C) -DTEST_DEVICE=calomu_emulated -o $@ $< $(filter %.o,$^) -lm $(LDFLAGS)

$(B)/test_%_double: tests/test_%.c tests/test.h tests/test_net.h calomu.h $(B)/calomu_double.o
	$(CC) $(ALL_C) -I. -DCALOMU_INTERNALS -DCALOMU_REAL=double -o $@ $< $(B)/calomu_double.o \
	  -lm $(LDFLAGS)

$(OBJECTS) $(B)/cuda:
	@mkdir -p $@

DOUBLES  = ops sums golden gradients
BINARIES = $(TESTS:%=$(B)/test_%) $(DOUBLES:%=$(B)/test_%_double)

CORES = $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
test:
	@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(CORES)) all $(BINARIES)
	@B=$(B) CC="$(CC)" REF="$(REF)" PYTHON="$(PYTHON)" sh tests/run.sh "$(BINARIES)" "$(SCRIPTS)"

# What takes too long for every day.
test-long: all $(B)/calomu.o
	@B=$(B) CC="$(CC)" REF="$(REF)" PYTHON="$(PYTHON)" sh tests/run.sh "" "$(LONG)"

# One muon, layer by layer: build/aloud MODEL DATA [NUMBER]
aloud: $(B)/aloud
$(B)/aloud: tests/aloud.c calomu.h $(B)/internals.o
	$(CC) $(ALL_C) -I. -DCALOMU_INTERNALS -o $@ $< $(B)/internals.o -lm $(LDFLAGS)

# The version of calomu.h; the soname's rule is in tools/install.sh.
NUMBER   := $(shell sed -n 's/^.define CALOMU_VERSION *\([0-9]*\).*/\1/p' calomu.h)
VERSION  := $(shell n=$(NUMBER); echo $$((n / 10000)).$$((n / 100 % 100)).$$((n % 100)))
SOVERSION := $(shell n=$(NUMBER); m=$$((n / 10000)); \
               [ $$m -gt 0 ] && echo $$m || echo 0.$$((n / 100 % 100)))
PREFIX   ?= /usr/local
LIB      ?= lib
$(B)/libcalomu.so: $(B)/calomu.o
	$(LINK) -shared -Wl,-soname,libcalomu.so.$(SOVERSION) -o $@ $^ -lm

install: all $(B)/libcalomu.so
install uninstall:
	@B="$(B)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" LIB="$(LIB)" OPENMP="$(OPENMP)" \
	  VERSION="$(VERSION)" SOVERSION="$(SOVERSION)" sh tools/install.sh $@

demo: all
	@B=$(B) sh tools/demo.sh

$(B)/physics: tools/simulation/physics.c calomu.h $(B)/calomu.o
	$(CC) $(ALL_C) -o $@ $< $(B)/calomu.o -lm $(LDFLAGS)

physics: all $(B)/physics
	@B=$(B) REF="$(REF)" sh tools/simulation/physics.sh

bench bench-check: $(if $(filter cuda%,$(DEVICE)),cuda,all)
	@B=$(B) REF="$(REF)" PYTHON="$(PYTHON)" PEER_PYTHON="$(PEER_PYTHON)" DEVICE="$(DEVICE)" \
	  MATH="$(MATH)" sh tools/bench.sh $(if $(filter bench-check,$@),--check)

scaling: all
	@sh tools/scaling.sh

matrix: all
	@B=$(B) CC="$(CC)" sh tests/matrix.sh $(if $(INSTALL),--install)

mutants:
	@CC="$(CC)" sh tests/mutants.sh $(MUTANTS)

SAN = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
sanitize:
	$(MAKE) clean-programs
	TEST_BRIEF=1 ASAN_OPTIONS=detect_leaks=1 $(MAKE) B=build/san CFLAGS="-O2 -g $(SAN)" SCRIPTS="$(COMMANDS)" DOUBLES= test
	$(MAKE) clean-programs

TSAN_TESTS = ops train network model simulate eval
# gcc's libgomp is not known to the thread sanitizer; clang's libomp is, through Archer.
tsan:
	$(MAKE) B=build/tsan CC=clang CFLAGS="-O2 -g -fsanitize=thread" \
	  $(TSAN_TESTS:%=build/tsan/test_%)
	cd build/tsan && for t in $(TSAN_TESTS); do TEST_BRIEF=1 \
	  TSAN_OPTIONS="ignore_noninstrumented_modules=1" ./test_$$t ../../testdata ../tmp || exit 1; done

valgrind: calomu
	@B=$(B) sh tests/valgrind.sh

testdata: all
	$(PYTHON) tools/make_testdata.py $(REF)

clean-programs clean:
	rm -rf calomu calomu-import-h5 $(if $(filter clean,$@),$(B))

include cuda/cuda.mk

.PHONY: all help test test-long install uninstall demo aloud physics bench bench-check scaling \
        matrix mutants sanitize tsan \
        valgrind testdata clean clean-programs cuda test-cuda
