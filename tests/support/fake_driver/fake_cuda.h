/* What the parts of the stand-in driver share. */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda_types.h"

#define MOST_PARAMETERS 4096
#define POISON 0xff
#define AT(address) ((void *)(uintptr_t)(address))

typedef int (*Kernel)(const char *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned);
typedef enum { COPY, FILL, LAUNCH, HOST, RECORD, WAIT } Kind;

typedef struct Work {
    Kind kind;
    void *to, *from;       /* COPY, FILL */
    void *staged;          /* COPY from pageable memory: what was there, owned */
    size_t bytes;          /* COPY, FILL; LAUNCH: of the parameters */
    int value;             /* FILL */
    CUfunction function;   /* LAUNCH */
    unsigned dims[6];
    char *parameters;      /* owned */
    CUhostFn host;         /* HOST, and what it is given */
    void *data;
    CUevent event;         /* RECORD, WAIT */
    unsigned long ticket;  /* which record of the event */
    struct Work *next;
} Work;

typedef struct { Work *head, **tail; } Queue;

struct CUctx_st { int retained; };
struct CUmod_st { void *library; CUfunction functions; };
struct CUfunc_st { Kernel kernel; char *name; CUfunction next; };
struct CUevent_st { CUstream stream; unsigned long tickets, done; int captured; struct timespec time; };
struct CUgraph_st { Queue queue; };
struct CUgraphExec_st { Queue queue; };
struct CUstream_st {
    Queue queue, captured;
    int blocking, priority;
    CUstreamCaptureStatus capture;
    pthread_t capturing_thread;
    CUstream next;
};

/* Of which fake_cuda_count says how many there are, or have been. */
#define COUNTED(X) \
    X(device_memory) X(host_memory) X(streams) X(events) X(modules) X(graphs) X(graph_execs) X(contexts) X(launches)
#define DECLARE(name) extern long count_##name;
COUNTED(DECLARE)

extern CUresult lost;       /* after a kernel crashed: what every call answers */
extern __thread int in_host_function;
extern CUstream all_streams;
extern struct CUstream_st default_stream;

int take_lock(void);
void give_lock(int *unused);
CUresult asked_to_fail(const char *call);
long setting(const char *name, long otherwise);
CUresult state_of(int needs_context);

/* What a call begins with: the lock, until it returns; then errors it was asked for, or that it has to answer. */
#define RETURN_IF(error)                            \
    do {                                            \
        CUresult error_ = (error);                  \
        if (error_ != CUDA_SUCCESS) return error_;  \
    } while (0)
#define LOCKED int lock_ __attribute__((cleanup(give_lock), unused)) = take_lock()
#define ENTER                                       \
    LOCKED;                                         \
    RETURN_IF(asked_to_fail(__func__));             \
    RETURN_IF(state_of(1))
#define ENTER_WITHOUT_CONTEXT                       \
    LOCKED;                                         \
    RETURN_IF(asked_to_fail(__func__));             \
    RETURN_IF(state_of(0))

/* Whether these bytes lie in live device or page-locked memory. */
int is_allocated(const void *address, size_t bytes);

/* Gives work to a stream (NULL: the default one), or to what it captures. Owns what the work owns from then on. */
CUresult give(CUstream stream, Work work);
/* Does the work of a stream: all of it, or as far as one record of an event. */
void drain(CUstream stream, CUevent event, unsigned long ticket);
void drain_all(void);
void clear(Queue *queue);
/* Spoils what the stream captures, and returns the error. */
CUresult spoil(CUstream stream, CUresult error);
/* For what waits, allocates or frees. Not permitted in a host function; where this thread captures, spoils that. */
CUresult refused_in_capture(void);

#endif
