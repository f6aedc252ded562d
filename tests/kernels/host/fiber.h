// A stack that the scheduler enters and leaves. Private to cuda_on_cpu.cpp.
//
// What the sanitizers must be told is told here: AddressSanitizer which stack is in use, ThreadSanitizer which
// CUDA thread acts and what it waited for. This file is compiled without instrumentation in every build.
#pragma once
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdlib>
#include <new>

#if defined(CUDA_ON_CPU_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(CUDA_ON_CPU_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_on_cpu {

#if defined(CUDA_ON_CPU_TSAN)
constexpr bool one_thread_per_fiber = true;  // what shares a fiber is ordered, and its races stay unseen
inline void tsan_release(void* key) { __tsan_release(key); }
inline void tsan_acquire(void* key) { __tsan_acquire(key); }
#else
constexpr bool one_thread_per_fiber = false;
inline void tsan_release(void*) {}
inline void tsan_acquire(void*) {}
#endif

class Fiber {
  public:
    // `body` never returns: it leaves instead.
    explicit Fiber(void (*body)()) : body_(body) {
        void* memory = mmap(nullptr, guard_size + stack_size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        memory_ = static_cast<char*>(memory);
        mprotect(memory_, guard_size, PROT_NONE);  // too deep a stack stops here, and not in another thread's
#if defined(CUDA_ON_CPU_TSAN)
        tsan_fiber_ = __tsan_create_fiber(0);
#endif
    }

    ~Fiber() {
#if defined(CUDA_ON_CPU_ASAN)
        __asan_unpoison_memory_region(stack(), stack_size);
#elif defined(CUDA_ON_CPU_TSAN)
        __tsan_destroy_fiber(tsan_fiber_);
#endif
        munmap(memory_, guard_size + stack_size);
    }

    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // From the scheduler: runs the fiber until it leaves.
    __attribute__((noinline)) void enter() {
#if defined(CUDA_ON_CPU_ASAN)
        __sanitizer_start_switch_fiber(&scheduler_fake_stack_, stack(), stack_size);
#elif defined(CUDA_ON_CPU_TSAN)
        tsan_scheduler_ = __tsan_get_current_fiber();
        __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
#endif
        // Unlike swapcontext this switches without a system call.
        if (!__builtin_setjmp(scheduler_place_)) started_ ? jump(fiber_place_) : start();
#if defined(CUDA_ON_CPU_ASAN)
        __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
    }

    // From within the fiber: back to the scheduler, until it enters again.
    __attribute__((noinline)) void leave() {
#if defined(CUDA_ON_CPU_ASAN)
        __sanitizer_start_switch_fiber(&fiber_fake_stack_, scheduler_stack_, scheduler_stack_size_);
#elif defined(CUDA_ON_CPU_TSAN)
        __tsan_switch_to_fiber(tsan_scheduler_, __tsan_switch_to_fiber_no_sync);
#endif
        if (!__builtin_setjmp(fiber_place_)) jump(scheduler_place_);
        after_entering();
    }

    // From the scheduler: lets the thread that waits in this fiber pass its knowledge on, or take it over.
    void release_for_tsan(void* key) { as_tsan_fiber(tsan_release, key); }
    void acquire_for_tsan(void* key) { as_tsan_fiber(tsan_acquire, key); }

  private:
    static constexpr size_t stack_size = 128 * 1024, guard_size = 64 * 1024;

    char* stack() { return memory_ + guard_size; }

    __attribute__((noinline, noreturn)) static void jump(void** place) { __builtin_longjmp(place, 1); }

    __attribute__((noinline, noreturn)) void start() {
        started_ = true;
        starting_ = this;
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = stack();
        context.uc_stack.ss_size = stack_size;
        context.uc_link = nullptr;
        makecontext(&context, main, 0);
        setcontext(&context);
        abort();
    }

    static void main() {
        Fiber& self = *starting_;
        self.after_entering();
        self.body_();
        abort();
    }

    void after_entering() {
#if defined(CUDA_ON_CPU_ASAN)
        __sanitizer_finish_switch_fiber(fiber_fake_stack_, &scheduler_stack_, &scheduler_stack_size_);
#endif
    }

    void as_tsan_fiber([[maybe_unused]] void (*act)(void*), [[maybe_unused]] void* key) {
#if defined(CUDA_ON_CPU_TSAN)
        void* scheduler = __tsan_get_current_fiber();
        __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
        act(key);
        __tsan_switch_to_fiber(scheduler, __tsan_switch_to_fiber_no_sync);
#endif
    }

    inline static Fiber* starting_ = nullptr;

    void (*body_)();
    char* memory_ = nullptr;
    bool started_ = false;
    void* scheduler_place_[5];
    void* fiber_place_[5];
#if defined(CUDA_ON_CPU_ASAN)
    void* scheduler_fake_stack_ = nullptr;
    void* fiber_fake_stack_ = nullptr;
    const void* scheduler_stack_ = nullptr;
    size_t scheduler_stack_size_ = 0;
#elif defined(CUDA_ON_CPU_TSAN)
    void* tsan_fiber_ = nullptr;
    void* tsan_scheduler_ = nullptr;
#endif
};

}  // namespace cuda_on_cpu
