# cuda.mk - the program with the CUDA unit, and its test.  NVCC: of CUDA 12 or newer; ARCHS: compute
# capabilities, as far as that nvcc knows them.  Newer GPUs run what is made for the newest of them.
# cudart is linked statically: the program starts where there is no CUDA as well.
NVCC    ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc),nvcc)
ARCHS   ?= 70 75 80 86 89 90
SM       = $(filter $(ARCHS),$(patsubst compute_%,%,$(shell $(NVCC) --list-gpu-arch 2>/dev/null)))
CUDART   = $(shell $(NVCC) --dryrun -x cu /dev/null 2>&1 | sed -n 's/^\#$$ LIBRARIES=//p') \
           -lcudart_static -lstdc++ -ldl -lrt -lpthread -lm
$(B)/cuda.o: $(wildcard cuda/*.h) cuda/cuda.cu calomu.h | $(OBJECTS)
	@[ -n "$(SM)" ] || { echo "make cuda needs nvcc (CUDA 12 or newer) for one of: $(ARCHS);" \
	  "NVCC=$(NVCC) is none" >&2; exit 1; }
	$(NVCC) -O3 -fmad=false -t0 $(foreach a,$(SM),-gencode arch=compute_$a,code=sm_$a) \
	  -gencode arch=compute_$(lastword $(SM)),code=compute_$(lastword $(SM)) \
	  -Werror all-warnings -Wno-deprecated-gpu-targets -Xcompiler -Wall,-Wextra,-Werror \
	  -c -o $@ cuda/cuda.cu

$(B)/cuda/%.o: tools/%.c $(wildcard tools/*.h) cuda/calomu_cuda.h calomu.h | $(B)/cuda
	@mkdir -p $(@D)
	$(CC) $(ALL_C) -DCALOMU_CUDA -c -o $@ $<

cuda: $(B)/cuda.o $(B)/internals.o $(VERBS:%=$(B)/cuda/%.o)
	$(LINK) -o calomu $^ $(CUDART)
	@echo "built: calomu with the CUDA unit for compute capability $(SM) and newer"

ON_GPU   = $(B)/cuda.o $(B)/internals.o
$(B)/test_cuda_gpu $(B)/test_device_gpu: $(B)/test_%_gpu: tests/test_%.c tests/test.h $(ON_GPU)
	$(CC) $(ALL_C) -DCALOMU_TEST_CUDA -o $@ $< $(ON_GPU) $(CUDART) $(LDFLAGS)

$(B)/test_golden_gpu: tests/test_golden.c tests/test_net.h $(ON_GPU)
	$(CC) $(ALL_C) -DTEST_DEVICE=calomu_cuda -o $@ $< $(ON_GPU) $(CUDART) $(LDFLAGS)

test-cuda: $(B)/test_cuda_gpu $(B)/test_device_gpu $(B)/test_golden_gpu
	@B=$(B) NVCC="$(NVCC)" REF="$(REF)" sh tests/cuda.sh
