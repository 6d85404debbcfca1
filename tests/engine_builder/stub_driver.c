/* A CUDA driver without a GPU: one device, memory from malloc, copies at once, and a clock that moves 0.5 ms with each recorded event.
 *
 * Every call is written to the file named by STUB_DRIVER_LOG, so that tests can assert their order. STUB_DRIVER_FAIL names a call that fails;
 * CUDA_STUB_FAIL, CUDA_STUB_HANG and CUDA_STUB_CRASH name one in stages too, which are given variables that begin with CUDA_.
 * What runs on the device says with stub_work how long it takes; in a graph, each launch takes as long as what was captured. After
 * stub_break every call fails, as after an illegal access.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int status;
typedef unsigned long long address;

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_INVALIDATED = 901 };
enum { CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1 };

static int context, capturing;
static char objects[4096];
static int next_object;
static double now_ms, captured_ms;
static double record_ms = 0.5; /* 0 once work says itself how long it takes */
static int broken;
static void *captured;
typedef struct { void *to; const void *from; size_t size; } copy_on_gpu; /* the last one in a graph; size 0: none */
static copy_on_gpu captured_copy;
static struct { void *graph; double ms; copy_on_gpu copy; } graphs[256]; /* the last ones */
static unsigned next_graph;

int stub_is_capturing(void) { return capturing; }
int stub_is_broken(void) { return broken; }
void stub_break(void) { broken = 1; }
void stub_work(float ms) { record_ms = 0; if (capturing) captured_ms += ms; else now_ms += ms; }

static void keep_graph(void *graph, double ms, copy_on_gpu copy) {
    graphs[next_graph % 256].graph = graph, graphs[next_graph % 256].ms = ms, graphs[next_graph++ % 256].copy = copy;
}
static int place_of(void *graph) {
    for (int i = 0; i < 256; i++) if (graphs[i].graph == graph) return i;
    return -1;
}
static double ms_of(void *graph) { int i = place_of(graph); return i < 0 ? 0 : graphs[i].ms; }
static copy_on_gpu copy_of(void *graph) { int i = place_of(graph); return i < 0 ? (copy_on_gpu){0} : graphs[i].copy; }
static void do_copy(copy_on_gpu copy) { if (copy.size) memcpy(copy.to, copy.from, copy.size); }
static int is_named(const char *variable, const char *name) { const char *given = getenv(variable); return given && !strcmp(given, name); }

static status called(const char *name) {
    const char *path = getenv("STUB_DRIVER_LOG"), *fail = getenv("STUB_DRIVER_FAIL");
    if (path) {
        FILE *file = fopen(path, "a");
        fprintf(file, "%s\n", name);
        fclose(file);
    }
    if (is_named("CUDA_STUB_CRASH", name)) raise(SIGSEGV);
    while (is_named("CUDA_STUB_HANG", name)) sleep(60);
    if (broken) return ILLEGAL_ADDRESS;
    if (is_named("CUDA_STUB_FAIL", name)) return CAPTURE_INVALIDATED;
    return fail && !strcmp(fail, name) ? CAPTURE_INVALIDATED : SUCCESS;
}

static void *new_object(void) { return &objects[next_object++ % sizeof objects]; }

#define CALL(name) do { status failed = called(#name); if (failed) return failed; } while (0)

status cuInit(unsigned flags) { CALL(cuInit); return SUCCESS; }
status cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
status cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
status cuDeviceGet(int *device, int index) { *device = index; return SUCCESS; }
/* Two GPUs; like CUDA, the first number in CUDA_VISIBLE_DEVICES says which of them is device 0. */
static int real(int device) { const char *visible = getenv("CUDA_VISIBLE_DEVICES"); return visible ? atoi(visible) : device; }
status cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "NVIDIA Stub %d", real(device) + 1); return SUCCESS; }
status cuDeviceGetUuid_v2(unsigned char *uuid, int device) { memset(uuid, 7 + real(device), 16); return SUCCESS; }
status cuDeviceGetByPCIBusId(int *device, const char *id) { *device = 0; return SUCCESS; }
status cuDeviceGetPCIBusId(char *id, int size, int device) { snprintf(id, size, "0000:65:00.0"); return SUCCESS; }
status cuDeviceGetAttribute(int *value, int attribute, int device) {
    /* compute capability 8.9, memory pools, PCI bus 0x65 */
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : attribute == 115 ? 1 : attribute == 33 ? 0x65 : 0;
    return SUCCESS;
}
status cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8, *minor = 9; return SUCCESS; }
status cuDevicePrimaryCtxRetain(void **made, int device) { CALL(cuDevicePrimaryCtxRetain); *made = &context; return SUCCESS; }
status cuDevicePrimaryCtxRelease_v2(int device) { CALL(cuDevicePrimaryCtxRelease); return SUCCESS; }
status cuCtxCreate_v2(void **made, unsigned flags, int device) { CALL(cuCtxCreate); *made = &context; return SUCCESS; }
status cuCtxCreate_v4(void **made, void *options, unsigned flags, int device) { return cuCtxCreate_v2(made, flags, device); }
status cuCtxDetach(void *held) { CALL(cuCtxDetach); return SUCCESS; }
status cuCtxSetCurrent(void *wanted) { CALL(cuCtxSetCurrent); return SUCCESS; }
status cuCtxGetCurrent(void **current) { *current = &context; return SUCCESS; }
status cuCtxPushCurrent_v2(void *wanted) { CALL(cuCtxPushCurrent); return SUCCESS; }
status cuCtxPopCurrent_v2(void **popped) { CALL(cuCtxPopCurrent); if (popped) *popped = &context; return SUCCESS; }
status cuCtxGetDevice(int *device) { *device = 0; return SUCCESS; }
status cuCtxGetDevice_v2(int *device, void *of) { *device = 0; return SUCCESS; }
status cuCtxGetApiVersion(void *of, unsigned *version) { *version = 3020; return SUCCESS; }
status cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; return SUCCESS; }
status cuCtxSynchronize(void) { CALL(cuCtxSynchronize); return SUCCESS; }

status cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = new_object(); return SUCCESS; }
status cuDeviceGetMemPool(void **pool, int device) { *pool = new_object(); return SUCCESS; }
status cuMemGetMemPool(void **pool, void *location, int type) { *pool = new_object(); return SUCCESS; }
status cuMemPoolGetAttribute(void *pool, int attribute, void *value) { *(uint64_t *)value = 0; return SUCCESS; }
status cuMemPoolSetAttribute(void *pool, int attribute, void *value) { return SUCCESS; }
status cuMemPoolGetAccess(int *flags, void *pool, void *location) { *flags = 3; return SUCCESS; }
status cuMemPoolSetAccess(void *pool, void *map, size_t count) { return SUCCESS; }
static status allocate(address *made, size_t size) {
    if (size > (size_t)1 << 40) return OUT_OF_MEMORY;
    *made = (address)(uintptr_t)malloc(size);
    return SUCCESS;
}
status cuMemAlloc_v2(address *made, size_t size) { CALL(cuMemAlloc); return allocate(made, size); }
status cuMemAllocAsync(address *made, size_t size, void *stream) { CALL(cuMemAlloc); return allocate(made, size); }
status cuMemAllocFromPoolAsync(address *made, size_t size, void *pool, void *stream) { CALL(cuMemAlloc); return allocate(made, size); }
status cuMemFree_v2(address held) { CALL(cuMemFree); free((void *)(uintptr_t)held); return SUCCESS; }
status cuMemFreeAsync(address held, void *stream) { return cuMemFree_v2(held); }
status cuMemAllocHost_v2(void **made, size_t size) { CALL(cuMemAllocHost); *made = malloc(size); return SUCCESS; }
status cuMemHostAlloc(void **made, size_t size, unsigned flags) { return cuMemAllocHost_v2(made, size); }
status cuMemFreeHost(void *held) { CALL(cuMemFreeHost); free(held); return SUCCESS; }
status cuPointerGetAttributes(unsigned count, int *attributes, void **values, address held) {
    for (unsigned i = 0; i < count; i++) *(int *)values[i] = attributes[i] == 2 ? 2 : 0; /* memory type: device */
    return SUCCESS;
}
static status copied(void *to, const void *from, size_t size) { memcpy(to, from, size); return SUCCESS; }
status cuMemcpyAsync(address to, address from, size_t size, void *stream) {
    CALL(cuMemcpy);
    return copied((void *)(uintptr_t)to, (void *)(uintptr_t)from, size);
}
status cuMemcpyHtoDAsync_v2(address to, const void *from, size_t size, void *stream) {
    CALL(cuMemcpy);
    return copied((void *)(uintptr_t)to, from, size);
}
status cuMemcpyDtoHAsync_v2(void *to, address from, size_t size, void *stream) {
    CALL(cuMemcpy);
    return copied(to, (void *)(uintptr_t)from, size);
}

/* Copies on the GPU: 1000 GB/s, read and written. */
status cuMemcpyDtoDAsync_v2(address to, address from, size_t size, void *stream) {
    copy_on_gpu copy = {(void *)(uintptr_t)to, (void *)(uintptr_t)from, size};
    CALL(cuMemcpyDtoD);
    stub_work(2e-9 * size);
    if (capturing) captured_copy = copy; else if (size < 4096) do_copy(copy); /* large ones only take time */
    return SUCCESS;
}

/* The kernels of conversions.ptx: a launch takes 2 us, an element 4e-9 ms; only small arrays are computed. */
static const char *const kernels[] = {"nothing", "quantize", "dequantize"};
static double from_half(uint16_t half) {
    int exponent = half >> 10 & 31;
    double fraction = (half & 1023) / 1024.0;
    double value = exponent ? __builtin_ldexp(1 + fraction, exponent - 15) : __builtin_ldexp(fraction, -14);
    return half >> 15 ? -value : value;
}
static uint16_t to_half(double value) { /* exact values only */
    int exponent;
    double fraction = __builtin_frexp(value < 0 ? -value : value, &exponent);
    return value ? (value < 0) << 15 | (exponent + 14) << 10 | (int)((2 * fraction - 1) * 1024) : 0;
}
status cuModuleLoadData(void **made, const void *text) { CALL(cuModuleLoadData); *made = new_object(); return SUCCESS; }
status cuModuleUnload(void *module) { CALL(cuModuleUnload); return SUCCESS; }
status cuModuleGetFunction(void **made, void *module, const char *name) {
    CALL(cuModuleGetFunction);
    for (int i = 0; i < 3; i++) if (!strcmp(kernels[i], name)) { *made = (void *)kernels[i]; return SUCCESS; }
    return NOT_FOUND;
}
status cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                      void **values, void **extra) {
    CALL(cuLaunchKernel);
    if (function == kernels[0]) { stub_work(0.002f); return SUCCESS; }
    unsigned count = *(unsigned *)values[2] * 8;
    float factor = *(float *)values[3];
    stub_work(0.002f + 4e-9 * count);
    void *from = *(void **)values[0], *to = *(void **)values[1];
    for (unsigned i = 0; count < 4096 && i < count; i++) {
        if (function == kernels[2]) { ((uint16_t *)to)[i] = to_half(((int8_t *)from)[i] * factor); continue; }
        double value = __builtin_rint(from_half(((uint16_t *)from)[i]) * factor);
        ((int8_t *)to)[i] = value < -128 ? -128 : value > 127 ? 127 : value;
    }
    return SUCCESS;
}

status cuStreamCreate(void **made, unsigned flags) {
    CALL(cuStreamCreate);
    called(flags == 1 ? "non-blocking" : "blocking");
    *made = new_object();
    return SUCCESS;
}
status cuStreamCreateWithPriority(void **made, unsigned flags, int priority) { return cuStreamCreate(made, flags); }
status cuStreamGetCtx(void *stream, void **of) { *of = &context; return SUCCESS; }
status cuStreamGetCtx_v2(void *stream, void **of, void **green) { *of = &context; *green = NULL; return SUCCESS; }
status cuStreamGetFlags(void *stream, unsigned *flags) { *flags = 1; return SUCCESS; }
status cuStreamGetPriority(void *stream, int *priority) { *priority = 0; return SUCCESS; }
status cuStreamGetDevice(void *stream, int *device) { *device = 0; return SUCCESS; }
status cuStreamSynchronize(void *stream) { CALL(cuStreamSynchronize); return SUCCESS; }
status cuStreamDestroy_v2(void *stream) { CALL(cuStreamDestroy); return SUCCESS; }
status cuStreamIsCapturing(void *stream, int *state) { *state = capturing; return SUCCESS; }
status cuStreamGetCaptureInfo_v2(void *stream, int *state, uint64_t *id, void **graph, const void **nodes, size_t *count) {
    *state = capturing;
    if (id) *id = 1;
    if (graph) *graph = captured;
    if (count) *count = 0;
    return SUCCESS;
}
status cuStreamGetCaptureInfo_v3(void *stream, int *state, uint64_t *id, void **graph, const void **nodes, const void **edges, size_t *count) {
    return cuStreamGetCaptureInfo_v2(stream, state, id, graph, nodes, count);
}
status cuStreamBeginCapture_v2(void *stream, int mode) { CALL(cuStreamBeginCapture); capturing = CAPTURE_ACTIVE, captured_ms = 0, captured_copy.size = 0, captured = new_object(); return SUCCESS; }
status cuStreamEndCapture(void *stream, void **graph) {
    capturing = CAPTURE_NONE;
    *graph = captured;
    keep_graph(captured, captured_ms, captured_copy);
    CALL(cuStreamEndCapture);
    return SUCCESS;
}

status cuEventCreate(void **made, unsigned flags) { CALL(cuEventCreate); *made = calloc(1, sizeof(double)); return SUCCESS; }
status cuEventRecord(void *event, void *stream) { CALL(cuEventRecord); *(double *)event = now_ms += record_ms; return SUCCESS; }
status cuEventSynchronize(void *event) { CALL(cuEventSynchronize); return SUCCESS; }
status cuEventQuery(void *event) { return SUCCESS; }
status cuEventElapsedTime(float *ms, void *from, void *to) {
    CALL(cuEventElapsedTime);
    *ms = *(double *)to - *(double *)from;
    return SUCCESS;
}
status cuEventElapsedTime_v2(float *ms, void *from, void *to) { return cuEventElapsedTime(ms, from, to); }
status cuEventDestroy_v2(void *event) { CALL(cuEventDestroy); free(event); return SUCCESS; }

status cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    CALL(cuGraphInstantiate);
    *made = new_object();
    keep_graph(*made, ms_of(graph), copy_of(graph));
    return SUCCESS;
}
status cuGraphInstantiateWithParams(void **made, void *graph, void *params) { return cuGraphInstantiateWithFlags(made, graph, 0); }
status cuUserObjectCreate(void **made, void *held, void (*destroy)(void *), unsigned count, unsigned flags) {
    *made = new_object();
    return SUCCESS;
}
status cuUserObjectRelease(void *object, unsigned count) { return SUCCESS; }
status cuGraphRetainUserObject(void *graph, void *object, unsigned count, unsigned flags) { return SUCCESS; }
status cuGraphReleaseUserObject(void *graph, void *object, unsigned count) { return SUCCESS; }
status cuGraphUpload(void *graph, void *stream) { CALL(cuGraphUpload); return SUCCESS; }
status cuGraphLaunch(void *graph, void *stream) { CALL(cuGraphLaunch); now_ms += ms_of(graph); do_copy(copy_of(graph)); return SUCCESS; }
status cuGraphExecDestroy(void *graph) { CALL(cuGraphExecDestroy); return SUCCESS; }
status cuGraphDestroy(void *graph) { CALL(cuGraphDestroy); return SUCCESS; }

status cuGetErrorName(status code, const char **text) { *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_STUB"; return SUCCESS; }
status cuGetErrorString(status code, const char **text) { *text = "the stub driver was told to fail"; return SUCCESS; }

/* The driver's own look-up: the newest version of a function that this file has. */
status cuGetProcAddress_v2(const char *symbol, void **found, int version, uint64_t flags, int *state) {
    static const char *const suffixes[] = {"_v4", "_v3", "_v2", ""};
    char name[256];
    *found = NULL;
    for (unsigned i = 0; i < 4 && !*found; i++) {
        snprintf(name, sizeof name, "%s%s", symbol, suffixes[i]);
        *found = dlsym(RTLD_DEFAULT, name);
        if (!*found) {
            void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
            if (self) *found = dlsym(self, name);
        }
    }
    if (state) *state = *found ? 0 : 1;
    return *found ? SUCCESS : NOT_FOUND;
}
status cuGetProcAddress(const char *symbol, void **found, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, found, version, flags, NULL);
}
