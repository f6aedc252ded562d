/* The types and codes of NVIDIA's cuda.h that the stand-in driver needs, so that a C compiler is all it takes.
 *
 * With CHECK_AGAINST_CUDA_H, cuda.h takes their place and each code is held against its own: where a toolkit is
 * installed, test_cuda.py compiles the stand-in in that way too.
 */
#ifndef CUDA_TYPES_H
#define CUDA_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define ERRORS(X)                                                                           \
    X(CUDA_SUCCESS, 0, "no error")                                                          \
    X(CUDA_ERROR_INVALID_VALUE, 1, "invalid argument")                                      \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2, "out of memory")                                         \
    X(CUDA_ERROR_NOT_INITIALIZED, 3, "initialization error")                                \
    X(CUDA_ERROR_DEVICE_UNAVAILABLE, 46, "CUDA-capable device(s) is/are busy or unavailable") \
    X(CUDA_ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                      \
    X(CUDA_ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                             \
    X(CUDA_ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                      \
    X(CUDA_ERROR_INVALID_CONTEXT, 201, "invalid device context")                            \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available for execution on the device") \
    X(CUDA_ERROR_ECC_UNCORRECTABLE, 214, "uncorrectable ECC error encountered")             \
    X(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222, "the provided PTX was compiled with an unsupported toolchain.") \
    X(CUDA_ERROR_INVALID_HANDLE, 400, "invalid resource handle")                            \
    X(CUDA_ERROR_NOT_FOUND, 500, "named symbol not found")                                  \
    X(CUDA_ERROR_NOT_READY, 600, "device not ready")                                        \
    X(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")          \
    X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch")   \
    X(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712,                                       \
      "part or all of the requested memory range is already mapped")                        \
    X(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, 713, "pointer does not correspond to a registered memory region") \
    X(CUDA_ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                          \
    X(CUDA_ERROR_NOT_PERMITTED, 800, "operation not permitted")                             \
    X(CUDA_ERROR_NOT_SUPPORTED, 801, "operation not supported")                             \
    X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "operation not permitted when stream is capturing") \
    X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901, "operation failed due to a previous error during capture") \
    X(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, 905,                                             \
      "dependency created on uncaptured work in another stream")                            \
    X(CUDA_ERROR_CAPTURED_EVENT, 907, "operation not permitted on an event last recorded in a capturing stream") \
    X(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, 908,                                          \
      "attempt to terminate a thread-local capture sequence from another thread")           \
    X(CUDA_ERROR_UNKNOWN, 999, "unknown error")

#define CODES(X)                                         \
    X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1)      \
    X(CU_DEVICE_ATTRIBUTE_WARP_SIZE, 10)                 \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)      \
    X(CU_DEVICE_ATTRIBUTE_INTEGRATED, 18)                \
    X(CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 19)       \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)  \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)  \
    X(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 0)        \
    X(CU_FUNC_ATTRIBUTE_NUM_REGS, 4)                     \
    X(CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, 4)              \
    X(CU_JIT_ERROR_LOG_BUFFER, 5)                        \
    X(CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, 6)             \
    X(CU_STREAM_NON_BLOCKING, 1)                         \
    X(CU_STREAM_CAPTURE_STATUS_NONE, 0)                  \
    X(CU_STREAM_CAPTURE_STATUS_ACTIVE, 1)                \
    X(CU_STREAM_CAPTURE_STATUS_INVALIDATED, 2)           \
    X(CU_STREAM_ATTRIBUTE_PRIORITY, 8)

#ifdef CHECK_AGAINST_CUDA_H

#include <cuda.h>
#undef cuEventElapsedTime
#define SAME_CODE(name, value) _Static_assert((int)(name) == (value), #name);
#define SAME_ERROR(name, value, text) SAME_CODE(name, value)
ERRORS(SAME_ERROR)
CODES(SAME_CODE)
_Static_assert((intptr_t)CU_LAUNCH_PARAM_BUFFER_POINTER == 1, "parameters");
_Static_assert((intptr_t)CU_LAUNCH_PARAM_BUFFER_SIZE == 2, "size of parameters");
_Static_assert(offsetof(CUstreamAttrValue, priority) == 0, "priority");

#else

#define CODE(name, value) name = (value),
#define ERROR_CODE(name, value, text) name = (value),
enum { ERRORS(ERROR_CODE) CODES(CODE) };
typedef int CUresult, CUdevice, CUdevice_attribute, CUfunction_attribute, CUjit_option, CUstreamAttrID;
typedef int CUstreamCaptureMode, CUstreamCaptureStatus;
typedef unsigned int cuuint32_t;
typedef unsigned long long CUdeviceptr, cuuint64_t;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef void (*CUhostFn)(void *);
typedef union { char pad[64]; int priority; } CUstreamAttrValue;
#define CU_LAUNCH_PARAM_BUFFER_POINTER ((void *)1)
#define CU_LAUNCH_PARAM_BUFFER_SIZE ((void *)2)

#endif
#endif
