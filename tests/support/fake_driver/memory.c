/* Memory: of the device, page-locked, and page-locked later. */
#include "fake_cuda.h"

typedef enum { ON_DEVICE, ON_HOST, REGISTERED } Place;
typedef struct Allocation { char *start; size_t bytes; Place place; struct Allocation *next; } Allocation;

static Allocation *allocations;
static size_t device_bytes;

int is_allocated(const void *address, size_t bytes) {
    const char *start = address;
    for (Allocation *each = allocations; each; each = each->next)
        if (start >= each->start && start + bytes <= each->start + each->bytes) return 1;
    return 0;
}

int fake_cuda_is_live(const void *address, size_t bytes) {
    LOCKED;
    return is_allocated(address, bytes);
}

static void note(void *start, size_t bytes, Place place) {
    Allocation *new = malloc(sizeof *new);
    *new = (Allocation){start, bytes, place, allocations};
    allocations = new;
    if (place == ON_DEVICE) device_bytes += bytes;
    ++*(place == ON_DEVICE ? &count_device_memory : &count_host_memory);
}

static void *allocate(size_t bytes, Place place) {
    void *start = memset(aligned_alloc(256, (bytes + 255) / 256 * 256), POISON, bytes);
    note(start, bytes, place);
    return start;
}

static CUresult release(void *start, Place place, CUresult unknown) {
    for (Allocation **each = &allocations; *each; each = &(*each)->next) {
        Allocation *found = *each;
        if (found->start != start || found->place != place) continue;
        *each = found->next;
        if (place == ON_DEVICE) device_bytes -= found->bytes;
        --*(place == ON_DEVICE ? &count_device_memory : &count_host_memory);
        if (place != REGISTERED) free(memset(found->start, POISON, found->bytes));
        free(found);
        return lost;
    }
    return unknown;
}

static size_t total_memory(void) { return (size_t)setting("FAKE_CUDA_MEMORY", 1l << 32); }

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER_WITHOUT_CONTEXT;
    (void)device;
    *bytes = total_memory();
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    ENTER;
    RETURN_IF(refused_in_capture());
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    if (device_bytes + bytes > total_memory()) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = (CUdeviceptr)(uintptr_t)allocate(bytes, ON_DEVICE);
    return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr address) {
    LOCKED;
    RETURN_IF(refused_in_capture());
    drain_all();
    return release(AT(address), ON_DEVICE, CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
    ENTER;
    *total = total_memory();
    *available = *total - device_bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **start, size_t bytes, unsigned flags) {
    ENTER;
    (void)flags;
    RETURN_IF(refused_in_capture());
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    *start = allocate(bytes, ON_HOST);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *start) {
    LOCKED;
    RETURN_IF(refused_in_capture());
    drain_all();
    return release(start, ON_HOST, CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemHostRegister_v2(void *start, size_t bytes, unsigned flags) {
    ENTER;
    (void)flags;
    RETURN_IF(refused_in_capture());
    if (!start || !bytes) return CUDA_ERROR_INVALID_VALUE;
    for (Allocation *each = allocations; each; each = each->next)
        if ((char *)start < each->start + each->bytes && each->start < (char *)start + bytes)
            return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    note(start, bytes, REGISTERED);
    return CUDA_SUCCESS;
}

CUresult cuMemHostUnregister(void *start) {
    LOCKED;
    RETURN_IF(refused_in_capture());
    drain_all();
    return release(start, REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *start, unsigned flags) {
    ENTER;
    (void)flags;
    *address = (CUdeviceptr)(uintptr_t)start;
    return is_allocated(start, 1) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
