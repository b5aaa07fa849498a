/* What the stub CANN libraries do besides reporting success: an Ascend 910B2 with eight devices, handles, host memory. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static int handle(void **out) {
  *out = calloc(1, 256);
  return *out ? 0 : 1;
}
static int allocate(void **out, size_t bytes) { return posix_memalign(out, 4096, bytes) ? 1 : 0; }

const char *aclrtGetSocName(void) { return "Ascend910B2"; }
const char *aclGetRecentErrMsg(void) { return ""; }
int aclrtGetDeviceCount(uint32_t *count) { *count = 8; return 0; }
int aclrtGetDevice(int *device) { *device = 0; return 0; }
int aclrtMalloc(void **out, size_t bytes, int policy) { return allocate(out, bytes); }
int aclrtMallocHost(void **out, size_t bytes) { return allocate(out, bytes); }
int aclrtGetMemInfo(int kind, size_t *available, size_t *total) {
  *available = (size_t)62 << 30;
  *total = (size_t)64 << 30;
  return 0;
}
int aclrtCreateStream(void **out) { return handle(out); }
int aclrtCreateStreamWithConfig(void **out, uint32_t priority, uint32_t flags) { return handle(out); }
int aclrtCreateContext(void **out, int device) { return handle(out); }
int aclrtGetCurrentContext(void **out) { return handle(out); }
int aclrtCreateEvent(void **out) { return handle(out); }
int aclrtCreateEventWithFlag(void **out, uint32_t flags) { return handle(out); }
int aclrtCreateEventExWithFlag(void **out, uint32_t flags) { return handle(out); }
