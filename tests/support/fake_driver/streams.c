/* What gives work to streams: copies, launches, events. */
#include "fake_cuda.h"

static CUresult copy(void *to, const void *from, size_t bytes, int to_device, int from_device, CUstream stream) {
    if ((to_device && !is_allocated(to, bytes)) || (from_device && !is_allocated(from, bytes)))
        return CUDA_ERROR_INVALID_VALUE;
    Work work = {.kind = COPY, .to = to, .from = (void *)from, .bytes = bytes};
    if (is_allocated(to, bytes) && is_allocated(from, bytes)) return give(stream, work);
    if (stream && stream->capture) return spoil(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (!from_device) work.staged = memcpy(malloc(bytes + 1), from, bytes);
    RETURN_IF(give(stream, work));
    if (!to_device) drain(stream ? stream : &default_stream, NULL, 0);
    return lost;
}

static CUresult copy_now(void *to, const void *from, size_t bytes, int to_device, int from_device) {
    RETURN_IF(refused_in_capture());
    for (CUstream each = all_streams; each; each = each->next)
        if (each->blocking) drain(each, NULL, 0);
    RETURN_IF(copy(to, from, bytes, to_device, from_device, NULL));
    drain(&default_stream, NULL, 0);
    return lost;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    ENTER;
    return copy_now(AT(to), from, bytes, 1, 0);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    ENTER;
    return copy_now(to, AT(from), bytes, 0, 1);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    ENTER;
    return copy_now(AT(to), AT(from), bytes, 1, 1);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    ENTER;
    return copy(AT(to), from, bytes, 1, 0, stream);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER;
    return copy(to, AT(from), bytes, 0, 1, stream);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER;
    return copy(AT(to), AT(from), bytes, 1, 1, stream);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ENTER;
    if (!is_allocated(AT(to), bytes)) return CUDA_ERROR_INVALID_VALUE;
    return give(stream, (Work){.kind = FILL, .to = AT(to), .value = value, .bytes = bytes});
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t bytes) {
    RETURN_IF(cuMemsetD8Async(to, value, bytes, NULL));
    LOCKED;
    drain(&default_stream, NULL, 0);
    return lost;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    ENTER;
    CUstream new = calloc(1, sizeof *new);
    new->queue.tail = &new->queue.head;
    new->captured.tail = &new->captured.head;
    new->blocking = !(flags & CU_STREAM_NON_BLOCKING);
    new->next = all_streams;
    all_streams = *stream = new;
    ++count_streams;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream) {
    LOCKED;
    drain(stream, NULL, 0);
    clear(&stream->captured);
    CUstream *each = &all_streams;
    while (*each != stream) each = &(*each)->next;
    *each = stream->next;
    free(stream);
    --count_streams;
    return lost;
}

CUresult cuStreamSetAttribute(CUstream stream, CUstreamAttrID attribute, const CUstreamAttrValue *value) {
    ENTER;
    if ((int)attribute != CU_STREAM_ATTRIBUTE_PRIORITY) return CUDA_ERROR_NOT_SUPPORTED;
    stream->priority = value->priority;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetPriority(CUstream stream, int *priority) {
    ENTER;
    *priority = stream->priority;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    ENTER;
    if (!stream) stream = &default_stream;
    if (stream->capture) return spoil(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    drain(stream, NULL, 0);
    return lost;
}

CUresult cuStreamQuery(CUstream stream) {
    ENTER;
    if (!stream) stream = &default_stream;
    if (stream->capture) return spoil(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (!stream->queue.head) return CUDA_SUCCESS;
    drain(stream, NULL, 0); /* so that who asks until it is done comes to an end */
    return lost ? lost : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    ENTER;
    (void)flags;
    if (stream && stream->capture && !event->captured) return spoil(stream, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    if (event->captured) return stream && stream->capture ? CUDA_SUCCESS : CUDA_ERROR_CAPTURED_EVENT;
    if (!event->stream) return CUDA_SUCCESS;
    return give(stream, (Work){.kind = WAIT, .event = event, .ticket = event->tickets});
}

CUresult cuEventCreate(CUevent *event, unsigned flags) {
    ENTER;
    (void)flags;
    *event = calloc(1, sizeof **event);
    ++count_events;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event) {
    LOCKED;
    RETURN_IF(refused_in_capture());
    drain_all(); /* no work may refer to it any more */
    free(event);
    --count_events;
    return lost;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    ENTER;
    event->captured = stream && stream->capture;
    if (event->captured) return CUDA_SUCCESS;
    event->stream = stream ? stream : &default_stream;
    return give(stream, (Work){.kind = RECORD, .event = event, .ticket = ++event->tickets});
}

CUresult cuEventSynchronize(CUevent event) {
    ENTER;
    if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
    if (event->stream && event->done < event->tickets) drain(event->stream, event, event->tickets);
    return lost;
}

CUresult cuEventQuery(CUevent event) {
    ENTER;
    if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
    if (event->done == event->tickets) return CUDA_SUCCESS;
    drain(event->stream, event, event->tickets);
    return lost ? lost : CUDA_ERROR_NOT_READY;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
    ENTER;
    if (!from->tickets || !to->tickets) return CUDA_ERROR_INVALID_HANDLE;
    if (from->done < from->tickets || to->done < to->tickets) return CUDA_ERROR_NOT_READY;
    *milliseconds = (float)(to->time.tv_sec - from->time.tv_sec) * 1e3f +
                    (float)(to->time.tv_nsec - from->time.tv_nsec) * 1e-6f;
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent from, CUevent to) {
    return cuEventElapsedTime(milliseconds, from, to);
}

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                               unsigned bz, unsigned shared_bytes, CUstream stream, void **pointers, void **extra) {
    ENTER;
    (void)shared_bytes;
    if (pointers || !extra || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER || extra[2] != CU_LAUNCH_PARAM_BUFFER_SIZE)
        return CUDA_ERROR_NOT_SUPPORTED;
    size_t bytes = *(size_t *)extra[3];
    if (!gx || !gy || !gz || !bx || !by || !bz || gx > 0x7fffffffu || gy > 65535 || gz > 65535 || bz > 64 ||
        (uint64_t)bx * by * bz > 1024 || bytes > MOST_PARAMETERS)
        return CUDA_ERROR_INVALID_VALUE;
    /* As long as parameters may be, so that a launcher that reads more than it was given reads poison. */
    char parameters[MOST_PARAMETERS];
    memset(parameters, POISON, sizeof parameters);
    memcpy(parameters, extra[1], bytes);
    return give(stream, (Work){.kind = LAUNCH, .function = function, .dims = {gx, gy, gz, bx, by, bz},
                               .parameters = parameters, .bytes = sizeof parameters});
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data) {
    ENTER;
    if (!function) return CUDA_ERROR_INVALID_VALUE;
    return give(stream, (Work){.kind = HOST, .host = function, .data = data});
}
