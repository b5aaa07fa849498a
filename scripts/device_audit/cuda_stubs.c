/* What the stub CUDA libraries do besides counting calls. Device memory is host memory that is mapped when touched;
   only small copies take place, so that large models cost no memory; handles exist; kernels compute nothing. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { TOTAL_MEMORY_GIB = 80, FREE_MEMORY_GIB = 78, LARGEST_COPY = 1 << 16 };

/* Copies and bytes to the device, from it, and on it; memsets; kernels that are written here. */
long stub_traffic[8];

static int copy(void *to, const void *from, size_t bytes, int kind) {
  int pair = kind == 1 ? 0 : kind == 2 ? 2 : 4;
  stub_traffic[pair]++;
  stub_traffic[pair + 1] += bytes;
  if (bytes <= LARGEST_COPY) memmove(to, from, bytes);
  return 0;
}

static int fill(void *to, int value, size_t bytes) {
  stub_traffic[6]++;
  if (bytes <= LARGEST_COPY) memset(to, value, bytes);
  return 0;
}

static int handle(void **out) {
  *out = calloc(1, 256);
  return *out ? 0 : 2;
}

/* Runtime */
int cudaMalloc(void **out, size_t bytes) {
  *out = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return *out == MAP_FAILED ? 2 : 0;
}
int cudaHostAlloc(void **out, size_t bytes, unsigned flags) { return posix_memalign(out, 4096, bytes) ? 2 : 0; }
int cudaFreeHost(void *memory) { free(memory); return 0; }
int cudaMemGetInfo(size_t *available, size_t *total) {
  *available = (size_t)FREE_MEMORY_GIB << 30;
  *total = (size_t)TOTAL_MEMORY_GIB << 30;
  return 0;
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { return copy(to, from, bytes, kind); }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
  return copy(to, from, bytes, kind);
}
int cudaMemset(void *to, int value, size_t bytes) { return fill(to, value, bytes); }
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) { return fill(to, value, bytes); }
int cudaGetDeviceCount(int *count) { *count = 8; return 0; }
int cudaStreamCreate(void **out) { return handle(out); }
int cudaStreamCreateWithFlags(void **out, unsigned flags) { return handle(out); }
int cudaStreamCreateWithPriority(void **out, unsigned flags, int priority) { return handle(out); }
int cudaEventCreate(void **out) { return handle(out); }
int cudaEventCreateWithFlags(void **out, unsigned flags) { return handle(out); }
int cudaEventElapsedTime(float *ms, void *start, void *end) { *ms = 1; return 0; }
const char *cudaGetErrorString(int error) { return "stub"; }
const char *cudaGetErrorName(int error) { return "stub"; }
int cudaGetDeviceProperties(char *properties, int device) { /* offsets in CUDA 11.6's cudaDeviceProp; an A100's values */
  memset(properties, 0, 712);
  strcpy(properties, "stub");
  *(size_t *)(properties + 288) = (size_t)TOTAL_MEMORY_GIB << 30;
  *(size_t *)(properties + 296) = 49152;              /* shared memory per block */
  *(int *)(properties + 304) = 65536;                 /* registers per block */
  *(int *)(properties + 308) = 32;                    /* warp */
  *(size_t *)(properties + 312) = (size_t)1 << 31;    /* pitch */
  *(int *)(properties + 320) = 1024;                  /* threads per block */
  for (int axis = 0; axis < 3; axis++) *(int *)(properties + 324 + 4 * axis) = axis < 2 ? 1024 : 64;
  for (int axis = 0; axis < 3; axis++) *(int *)(properties + 336 + 4 * axis) = axis ? 65535 : 2147483647;
  *(int *)(properties + 348) = 1410000;               /* clock, kHz */
  *(size_t *)(properties + 352) = 65536;              /* constant memory */
  *(int *)(properties + 360) = 8;                     /* compute capability 8.0 */
  *(size_t *)(properties + 368) = 512;                /* texture alignment */
  *(size_t *)(properties + 376) = 32;
  *(int *)(properties + 384) = 1;
  *(int *)(properties + 388) = 108;                   /* multiprocessors */
  return 0;
}

/* Driver, compiler */
int cuGetErrorName(int error, const char **out) { *out = "stub"; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 0 : attribute == 16 ? 108 : 1024;
  return 0;
}
int nvrtcVersion(int *major, int *minor) { *major = 11; *minor = 6; return 0; }

/* Handles of libraries */
int cublasCreate_v2(void **out) { return handle(out); }
int cudnnCreate(void **out) { return handle(out); }
int cusolverDnCreate(void **out) { return handle(out); }
int cusparseCreate(void **out) { return handle(out); }
const char *cudnnGetErrorString(int status) { return "stub"; }

/* cuDNN: a descriptor holds the tensor's bytes */
static const int bytes_of[] = {4, 8, 2, 1, 4, 4, 1, 4, 32, 2, 8};
static int describe(size_t *descriptor, int type, int axes, const int *shape) {
  size_t bytes = bytes_of[type];
  for (int axis = 0; axis < axes; axis++) bytes *= shape[axis];
  *descriptor = bytes;
  return 0;
}
int cudnnCreateTensorDescriptor(void **out) { return handle(out); }
int cudnnCreateFilterDescriptor(void **out) { return handle(out); }
int cudnnSetTensor4dDescriptor(size_t *descriptor, int format, int type, int n, int c, int h, int w) {
  return describe(descriptor, type, 4, (int[]){n, c, h, w});
}
int cudnnSetTensorNdDescriptor(size_t *descriptor, int type, int axes, const int *shape, const int *strides) {
  return describe(descriptor, type, axes, shape);
}
int cudnnSetTensorNdDescriptorEx(size_t *descriptor, int format, int type, int axes, const int *shape) {
  return describe(descriptor, type, axes, shape);
}
int cudnnSetFilter4dDescriptor(size_t *descriptor, int type, int format, int n, int c, int h, int w) {
  return describe(descriptor, type, 4, (int[]){n, c, h, w});
}
int cudnnSetFilterNdDescriptor(size_t *descriptor, int type, int format, int axes, const int *shape) {
  return describe(descriptor, type, axes, shape);
}
int cudnnGetTensorSizeInBytes(const size_t *descriptor, size_t *bytes) { *bytes = *descriptor; return 0; }
int cudnnGetFilterSizeInBytes(const size_t *descriptor, size_t *bytes) { *bytes = *descriptor; return 0; }

struct choice { int algorithm, status; float seconds; size_t memory; int determinism, math, reserved[3]; };
static int choose(int *found, struct choice *choices, int math) {
  *found = 1;
  *choices = (struct choice){.algorithm = 1, .math = math};
  return 0;
}
int cudnnGetConvolutionForwardAlgorithm_v7(void *h, void *a, void *b, void *c, void *d, int wanted, int *found,
                                           struct choice *choices) { return choose(found, choices, 1); }
int cudnnGetConvolutionBackwardDataAlgorithm_v7(void *h, void *a, void *b, void *c, void *d, int wanted, int *found,
                                                struct choice *choices) { return choose(found, choices, 0); }
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void *h, void *a, void *b, void *c, void *d, int wanted, int *found,
                                                  struct choice *choices) { return choose(found, choices, 0); }

/* Workspaces: their true sizes only cuDNN knows */
static int workspace(size_t *bytes, size_t value) { *bytes = value; return 0; }
int cudnnGetConvolutionForwardWorkspaceSize(void *h, void *a, void *b, void *c, void *d, int algorithm, size_t *bytes) {
  return workspace(bytes, 1024);
}
int cudnnGetConvolutionBackwardDataWorkspaceSize(void *h, void *a, void *b, void *c, void *d, int algorithm,
                                                 size_t *bytes) { return workspace(bytes, 1024); }
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *h, void *a, void *b, void *c, void *d, int algorithm,
                                                   size_t *bytes) { return workspace(bytes, 1024); }
int cudnnGetReductionWorkspaceSize(void *h, void *d, void *a, void *c, size_t *bytes) { return workspace(bytes, 1024); }
int cudnnGetReductionIndicesSize(void *h, void *d, void *a, void *c, size_t *bytes) { return workspace(bytes, 0); }
int cudnnDropoutGetStatesSize(void *h, size_t *bytes) { return workspace(bytes, 1024); }

/* NCCL: each rank thinks that the others are there */
int ncclGetUniqueId(char *id) { memset(id, 7, 128); return 0; }
int ncclCommInitRank(void **out, int ranks, ...) { return handle(out); }

/* Kernels: gradients are finite, so that an update which asks takes place */
int is_finite(size_t count, const float *values, char *out, void *stream)
    __asm__("_Z11CalIsFiniteIfE9cudaErrormPKT_PbP11CUstream_st");
int is_finite(size_t count, const float *values, char *out, void *stream) {
  stub_traffic[7]++;
  if (count <= LARGEST_COPY) memset(out, 1, count);
  return 0;
}
