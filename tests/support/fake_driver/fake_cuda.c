/* A stand-in for NVIDIA's driver, libcuda.so.1. It proves the code that calls the driver, and nothing about a GPU.
 *
 * Device memory is host memory. A kernel NAME is the function
 *     int launch_NAME(const char *parameters, unsigned gx, unsigned gy, unsigned gz,
 *                     unsigned bx, unsigned by, unsigned bz)
 * of the shared library that FAKE_CUDA_KERNELS names; what it returns other than 0 is a kernel that crashed, after
 * which, as with NVIDIA's, every call fails.
 *
 * It is as late as the real one may be, and refuses what the real one refuses:
 *  - work given to a stream is done when somebody waits for it, and not before; from and to page-locked memory,
 *    copies take place then too, and from pageable memory what was there at the call;
 *  - memory is full of 0xff until written, and again after it was freed; copies outside live allocations fail;
 *  - while a stream captures, its thread may not allocate, free, wait or copy pageable memory: that spoils the
 *    capture;
 *  - host functions may not call it.
 * It knows no capture over several streams, which NVIDIA's does.
 *
 * FAKE_CUDA_FAIL       "cuMemAlloc_v2=2,cuGraphLaunch=719": these calls answer these errors, as long as it says so
 * FAKE_CUDA_MEMORY     bytes of device memory (4 GiB)
 * FAKE_CUDA_CAPABILITY compute capability times ten (87), FAKE_CUDA_VERSION (13000), FAKE_CUDA_INTEGRATED (0)
 *
 * fake_cuda_count("device_memory") says how many of something there are now: see COUNTED in fake_cuda.h. For other
 * stand-ins, fake_cuda_is_live says whether bytes lie in live memory, and fake_cuda_lose loses the device.
 *
 * This file: driver, device, context, modules. memory.c: memory. work.c: streams' work, capture and graphs.
 * streams.c: what gives work to streams. unsupported.c: the rest.
 */
#include "fake_cuda.h"

#include <dlfcn.h>
#include <stdio.h>

#define MOST_DEPTH 64
#define DEFINE(name) long count_##name;
COUNTED(DEFINE)

CUresult lost;
__thread int in_host_function;
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int initialized;
static struct CUctx_st primary;
static __thread CUcontext stack[MOST_DEPTH];
static __thread int depth;

/* Who waits here may hold Python's lock, since PyCUDA keeps it in most calls, and may wait for a host function in
 * Python. So it is given up meanwhile. */
int take_lock(void) {
    if (!pthread_mutex_trylock(&mutex)) return 0;
    int (*held)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGILState_Check");
    void *(*give_up)(void) = (void *(*)(void))dlsym(RTLD_DEFAULT, "PyEval_SaveThread");
    void (*take_back)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyEval_RestoreThread");
    void *thread = held && held() ? give_up() : NULL;
    pthread_mutex_lock(&mutex);
    if (thread) take_back(thread);
    return 0;
}
void give_lock(int *unused) { (void)unused; pthread_mutex_unlock(&mutex); }

long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

CUresult asked_to_fail(const char *call) {
    const char *text = getenv("FAKE_CUDA_FAIL");
    size_t length = strlen(call);
    for (; text && *text; text = strchr(text, ','), text += text != NULL)
        if (!strncmp(text, call, length) && text[length] == '=') return (CUresult)atoi(text + length + 1);
    return CUDA_SUCCESS;
}

CUresult state_of(int needs_context) {
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (lost) return lost;
    if (in_host_function) return CUDA_ERROR_NOT_PERMITTED;
    return needs_context && !depth ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

long fake_cuda_count(const char *what) {
    LOCKED;
#define ANSWER(name) if (!strcmp(what, #name)) return count_##name;
    COUNTED(ANSWER)
    return !strcmp(what, "current") ? depth : -1;
}

void fake_cuda_lose(int error) {
    LOCKED;
    lost = (CUresult)error;
}

CUresult cuInit(unsigned flags) {
    LOCKED;
    (void)flags;
    RETURN_IF(asked_to_fail(__func__));
    initialized = 1;
    return CUDA_SUCCESS;
}

static const char *text_of(CUresult error, int name) {
#define NAME_OR_TEXT(code, value, text) case value: return name ? #code : text;
    switch ((int)error) { ERRORS(NAME_OR_TEXT) }
    return NULL;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = text_of(error, 0);
    if (*text) return CUDA_SUCCESS;
    *text = "an error without a text in cuda_types.h"; /* PyCUDA does not look whether there is one */
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult error, const char **text) {
    *text = text_of(error, 1);
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDriverGetVersion(int *version) {
    *version = (int)setting("FAKE_CUDA_VERSION", 13000);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    ENTER_WITHOUT_CONTEXT;
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER_WITHOUT_CONTEXT;
    *device = 0;
    return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    ENTER_WITHOUT_CONTEXT;
    (void)device;
    snprintf(name, (size_t)size, "stand-in for a GPU");
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    ENTER_WITHOUT_CONTEXT;
    (void)device;
    long capability = setting("FAKE_CUDA_CAPABILITY", 87);
    switch ((int)attribute) {
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 8; break;
        case CU_DEVICE_ATTRIBUTE_INTEGRATED: *value = (int)setting("FAKE_CUDA_INTEGRATED", 0); break;
        case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: *value = 1; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = (int)(capability / 10); break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = (int)(capability % 10); break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    RETURN_IF(cuDeviceGetAttribute(major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    return cuDeviceGetAttribute(minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER_WITHOUT_CONTEXT;
    (void)device;
    *context = &primary;
    count_contexts = ++primary.retained;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    LOCKED;
    (void)device;
    if (!primary.retained) return CUDA_ERROR_INVALID_CONTEXT;
    count_contexts = --primary.retained;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
    if (depth == MOST_DEPTH) return CUDA_ERROR_OUT_OF_MEMORY;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    *context = stack[--depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = depth ? stack[depth - 1] : NULL;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    ENTER;
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void) {
    ENTER;
    RETURN_IF(refused_in_capture());
    drain_all();
    return lost;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    ENTER;
    *least = 0;
    *greatest = -5;
    return CUDA_SUCCESS;
}

static int is_an_image(const char *image) {
    unsigned fatbin = 0xba55ed50u;
    return !memcmp(image, &fatbin, sizeof fatbin) || !memcmp(image, "\177ELF", 4) || strstr(image, ".version");
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options,
                                   void **values) {
    const char *library = getenv("FAKE_CUDA_KERNELS");
    char log[256] = "";
    CUresult result = CUDA_SUCCESS;
    ENTER;
    RETURN_IF(refused_in_capture());
    void *opened = library ? dlopen(library, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!is_an_image(image)) {
        result = CUDA_ERROR_INVALID_IMAGE;
        snprintf(log, sizeof log, "neither PTX, nor a cubin or fatbin");
    } else if (!opened) {
        result = CUDA_ERROR_NO_BINARY_FOR_GPU;
        snprintf(log, sizeof log, "FAKE_CUDA_KERNELS: %s", library ? dlerror() : "not set");
    }
    for (unsigned each = 0; each < count; ++each) {
        if ((int)options[each] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES) values[each] = 0;
        if ((int)options[each] == CU_JIT_ERROR_LOG_BUFFER) strcpy(values[each], log);
        if ((int)options[each] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) values[each] = (void *)strlen(log);
    }
    if (result != CUDA_SUCCESS) return result;
    *module = calloc(1, sizeof **module);
    (*module)->library = opened;
    ++count_modules;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

CUresult cuModuleUnload(CUmodule module) {
    LOCKED;
    drain_all();
    for (CUfunction each = module->functions, next; each; each = next) {
        next = each->next;
        free(each->name);
        free(each);
    }
    free(module);
    --count_modules;
    return lost;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    char symbol[256];
    ENTER;
    snprintf(symbol, sizeof symbol, "launch_%s", name);
    Kernel kernel = (Kernel)dlsym(module->library, symbol);
    if (!kernel) return CUDA_ERROR_NOT_FOUND;
    CUfunction new = malloc(sizeof *new);
    *new = (struct CUfunc_st){kernel, strdup(name), module->functions};
    module->functions = *function = new;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    ENTER;
    (void)function;
    *value = (int)attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024
             : (int)attribute == CU_FUNC_ATTRIBUTE_NUM_REGS           ? 32
                                                                      : 0;
    return CUDA_SUCCESS;
}
