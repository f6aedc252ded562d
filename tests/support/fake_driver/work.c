/* The work of streams and the order it is done in; capture, and graphs. */
#include "fake_cuda.h"

#include <stdio.h>

CUstream all_streams;
struct CUstream_st default_stream = {.queue = {NULL, &default_stream.queue.head}, .blocking = 1};

static void append(Queue *queue, Work work) {
    *queue->tail = malloc(sizeof work);
    **queue->tail = work;
    (*queue->tail)->next = NULL;
    queue->tail = &(*queue->tail)->next;
}

static Work copy_of(Work work) {
    if (work.parameters) work.parameters = memcpy(malloc(MOST_PARAMETERS), work.parameters, work.bytes);
    return work;
}

static void discard(Work *work) {
    free(work->staged);
    free(work->parameters);
    free(work);
}

void clear(Queue *queue) {
    for (Work *work = queue->head, *next; work; work = next) {
        next = work->next;
        discard(work);
    }
    *queue = (Queue){NULL, &queue->head};
}

static void perform(Work *work) {
    unsigned *d = work->dims;
    int code;
    switch (work->kind) {
        case COPY: memmove(work->to, work->staged ? work->staged : work->from, work->bytes); break;
        case FILL: memset(work->to, work->value, work->bytes); break;
        case RECORD:
            clock_gettime(CLOCK_MONOTONIC, &work->event->time);
            work->event->done = work->ticket;
            break;
        case WAIT: drain(work->event->stream, work->event, work->ticket); break;
        case HOST:
            in_host_function = 1;
            work->host(work->data);
            in_host_function = 0;
            break;
        case LAUNCH:
            ++count_launches;
            code = work->function->kernel(work->parameters, d[0], d[1], d[2], d[3], d[4], d[5]);
            if (code) {
                fprintf(stderr, "fake_cuda: launch_%s returned %d\n", work->function->name, code);
                lost = CUDA_ERROR_LAUNCH_FAILED;
            }
    }
}

/* A lost device does nothing more. */
void drain(CUstream stream, CUevent event, unsigned long ticket) {
    while (!(event && event->done >= ticket) && stream->queue.head) {
        Work *work = stream->queue.head;
        stream->queue.head = work->next;
        if (!work->next) stream->queue.tail = &stream->queue.head;
        if (!lost) perform(work);
        discard(work);
    }
}

void drain_all(void) {
    drain(&default_stream, NULL, 0);
    for (CUstream each = all_streams; each; each = each->next) drain(each, NULL, 0);
}

CUresult spoil(CUstream stream, CUresult error) {
    stream->capture = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    return error;
}

CUresult refused_in_capture(void) {
    if (in_host_function) return CUDA_ERROR_NOT_PERMITTED;
    for (CUstream each = all_streams; each; each = each->next)
        if (each->capture != CU_STREAM_CAPTURE_STATUS_NONE && pthread_equal(each->capturing_thread, pthread_self()))
            return spoil(each, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return CUDA_SUCCESS;
}

CUresult give(CUstream stream, Work work) {
    if (!stream) stream = &default_stream;
    if (stream->capture == CU_STREAM_CAPTURE_STATUS_INVALIDATED) {
        free(work.staged);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    append(stream->capture ? &stream->captured : &stream->queue, copy_of(work));
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    ENTER;
    (void)mode;
    if (!stream || stream->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    stream->capture = CU_STREAM_CAPTURE_STATUS_ACTIVE;
    stream->capturing_thread = pthread_self();
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    LOCKED;
    *graph = NULL;
    if (!stream || !stream->capture) return CUDA_ERROR_INVALID_VALUE;
    if (!pthread_equal(stream->capturing_thread, pthread_self())) return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    int spoilt = stream->capture == CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    CUresult injected = asked_to_fail(__func__);
    stream->capture = CU_STREAM_CAPTURE_STATUS_NONE;
    if (!spoilt && !injected) {
        *graph = malloc(sizeof **graph);
        (*graph)->queue = (Queue){NULL, &(*graph)->queue.head};
        for (Work *work = stream->captured.head; work; work = work->next) append(&(*graph)->queue, copy_of(*work));
        ++count_graphs;
    }
    clear(&stream->captured);
    return spoilt ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : injected;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    ENTER;
    *status = stream ? stream->capture : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    ENTER;
    (void)flags;
    *exec = malloc(sizeof **exec);
    (*exec)->queue = (Queue){NULL, &(*exec)->queue.head};
    for (Work *work = graph->queue.head; work; work = work->next) append(&(*exec)->queue, copy_of(*work));
    ++count_graph_execs;
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
    ENTER;
    (void)stream;
    return exec ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    ENTER;
    for (Work *work = exec->queue.head; work; work = work->next) RETURN_IF(give(stream, *work));
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    LOCKED;
    clear(&graph->queue);
    free(graph);
    --count_graphs;
    return lost;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    LOCKED;
    clear(&exec->queue);
    free(exec);
    --count_graph_execs;
    return lost;
}
