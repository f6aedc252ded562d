// Runs the threads of a block on one CPU thread.
//
// A fiber runs CUDA threads one after the other until one of them has to wait; then the next fiber goes on with
// those that have not begun. So a thread that never waits costs a function call. Once all have begun, whoever has
// what it waited for is resumed; if nobody has and somebody waits, the launch ends with a fault.
#include "cuda_on_cpu.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"
#include "shared_memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_cpu {
namespace {

enum class Operation { block_barrier, warp_barrier, vote, shuffle };

const char* name_of(Operation operation) {
    switch (operation) {
        case Operation::block_barrier: return "__syncthreads";
        case Operation::warp_barrier: return "__syncwarp";
        case Operation::vote: return "a vote";
        default: return "a shuffle";
    }
}

// What a thread brings to the place where it waits, and what it takes from there.
struct Wait {
    Operation operation;
    Site site;
    unsigned mask = 0;
    uint64_t value = 0;  // a predicate, or the bits of what is shuffled
    unsigned source_lane = 0;
    uint64_t result = 0;
    unsigned participants = 0;
};

bool same_meeting(const Wait& a, const Wait& b) {
    return a.operation == b.operation && a.mask == b.mask && a.site.line == b.site.line &&
           strcmp(a.site.file, b.site.file) == 0;
}

enum class State { running, waiting, released, exited };

struct Thread {
    uint3 index;
    State state;
    Fiber* fiber;
    Wait wait;
    char tsan_key;  // only its address counts
};

struct Fault {
    Code code = ok;
    std::string text;
};

class Scheduler {
  public:
    Code launch(dim3 grid, dim3 block, void (*call)(const void*), const void* context);
    void wait(Wait& wait);

    unsigned lane() const { return current_ % warpSize; }

    unsigned seed = 0;
    Fault fault;

  private:
    using Lanes = unsigned;  // one bit for each lane of a warp

    bool valid(dim3 grid, dim3 block);
    void number_threads(dim3 block);
    std::vector<size_t> order_of(size_t count, unsigned seed) const;
    void run_block();
    void begin_threads();
    void resume_released();
    bool release_warps();
    bool release_meeting(size_t first_of_warp, size_t leader);
    bool release_block();
    Lanes lanes_where(size_t first_of_warp, State state) const;
    void explain_standstill();
    std::string find_missing(const Thread& waiting) const;
    std::string described(const Thread& thread) const;
    static void run_fiber();

    void (*call_)(const void*) = nullptr;
    const void* context_ = nullptr;
    std::vector<Thread> threads_;
    std::vector<size_t> order_;
    size_t begun_ = 0;    // of order_
    size_t exited_ = 0;
    size_t current_ = 0;  // the thread that runs, or that ran last
    std::vector<std::unique_ptr<Fiber>> fibers_;
    size_t fibers_used_ = 0;
    char tsan_begin_ = 0, tsan_end_ = 0;
};

Scheduler scheduler;
std::mutex one_launch_at_a_time;

Code Scheduler::launch(dim3 grid, dim3 block, void (*call)(const void*), const void* context) {
    fault = Fault();
    if (!valid(grid, block)) return fault.code;
    call_ = call;
    context_ = context;
    blockDim = block;
    gridDim = grid;
    number_threads(block);
    order_ = order_of(threads_.size(), seed);
    const SharedMemory shared_memory = find_shared_memory();
    unsigned blocks_run = 0;
    for (const size_t number : order_of(size_t(grid.x) * grid.y * grid.z, seed)) {
        blockIdx = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
        shared_memory.poison(seed + blocks_run++);
        run_block();
        if (fault.code != ok) {
            fibers_.clear();  // some are still in the middle of the kernel
            break;
        }
    }
    return fault.code;
}

bool Scheduler::valid(dim3 grid, dim3 block) {
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    const bool block_fits = block.x <= 1024 && block.y <= 1024 && block.z <= 64 && threads > 0 && threads <= 1024;
    const bool grid_fits = grid.x > 0 && grid.x <= 0x7fffffffu && grid.y > 0 && grid.y <= 65535 && grid.z > 0 &&
                           grid.z <= 65535;
    if (!block_fits) fault = {invalid_launch, "no GPU takes a block of this shape"};
    if (!grid_fits) fault = {invalid_launch, "no GPU takes a grid of this shape"};
    return block_fits && grid_fits;
}

void Scheduler::number_threads(dim3 block) {
    threads_.assign(size_t(block.x) * block.y * block.z, Thread{});
    for (size_t i = 0; i < threads_.size(); ++i)
        threads_[i].index = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
}

std::vector<size_t> Scheduler::order_of(size_t count, unsigned seed) const {
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t(0));
    if (seed != 0) std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    return order;
}

void Scheduler::run_block() {
    begun_ = exited_ = fibers_used_ = 0;
    tsan_release(&tsan_begin_);
    begin_threads();
    while (exited_ < threads_.size()) {
        if (!release_warps() && !release_block()) {
            explain_standstill();
            return;
        }
        resume_released();
    }
    tsan_acquire(&tsan_end_);
}

void Scheduler::begin_threads() {
    while (begun_ < threads_.size()) {
        if (fibers_used_ == fibers_.size()) fibers_.push_back(std::make_unique<Fiber>(run_fiber));
        fibers_[fibers_used_++]->enter();
    }
}

// The body of every fiber. It leaves when no thread is left to begin, and goes on from there in the next block.
void Scheduler::run_fiber() {
    Scheduler& self = scheduler;
    for (;;) {
        Fiber& fiber = *self.fibers_[self.fibers_used_ - 1];
        do {
            const size_t number = self.order_[self.begun_++];
            Thread& thread = self.threads_[number];
            thread.state = State::running;
            thread.fiber = &fiber;
            self.current_ = number;
            threadIdx = thread.index;
            tsan_acquire(&self.tsan_begin_);
            self.call_(self.context_);
            tsan_release(&self.tsan_end_);
            thread.state = State::exited;
            ++self.exited_;
        } while (!one_thread_per_fiber && self.begun_ < self.threads_.size());
        fiber.leave();
    }
}

// From within a CUDA thread.
void Scheduler::wait(Wait& wait) {
    const size_t number = current_;
    Thread& thread = threads_[number];
    thread.wait = wait;
    thread.state = State::waiting;
    thread.fiber->leave();
    thread.state = State::running;
    wait = thread.wait;
}

void Scheduler::resume_released() {
    for (const size_t number : order_) {
        Thread& thread = threads_[number];
        if (thread.state != State::released) continue;
        current_ = number;
        threadIdx = thread.index;
        thread.fiber->enter();
    }
}

Scheduler::Lanes Scheduler::lanes_where(size_t first_of_warp, State state) const {
    Lanes lanes = 0;
    const size_t end = std::min(first_of_warp + warpSize, threads_.size());
    for (size_t i = first_of_warp; i < end; ++i)
        if (threads_[i].state == state) lanes |= 1u << (i - first_of_warp);
    return lanes;
}

bool Scheduler::release_warps() {
    bool any = false;
    for (size_t first = 0; first < threads_.size(); first += warpSize) {
        const size_t end = std::min(first + warpSize, threads_.size());
        for (size_t i = first; i < end; ++i) {
            const Thread& thread = threads_[i];
            if (thread.state == State::waiting && thread.wait.operation != Operation::block_barrier)
                any |= release_meeting(first, i);
        }
    }
    return any;
}

// Lanes that have exited may be named in the mask of a vote or barrier. A shuffle would have nothing to read
// from them.
bool Scheduler::release_meeting(size_t first_of_warp, size_t leader) {
    const Wait meeting = threads_[leader].wait;
    Lanes here = 0, in_favour = 0;
    for (Lanes left = lanes_where(first_of_warp, State::waiting) & meeting.mask; left; left &= left - 1) {
        const unsigned lane = __builtin_ctz(left);
        const Wait& other = threads_[first_of_warp + lane].wait;
        if (!same_meeting(meeting, other)) return false;
        here |= 1u << lane;
        in_favour |= other.value ? 1u << lane : 0u;
    }
    const size_t warp_lanes = std::min(threads_.size() - first_of_warp, size_t(warpSize));
    const Lanes existing = warp_lanes == 32 ? ~0u : (1u << warp_lanes) - 1u;
    const Lanes dispensable =
        meeting.operation == Operation::shuffle ? 0u : ~existing | lanes_where(first_of_warp, State::exited);
    if (!(here >> (leader - first_of_warp) & 1u) || (meeting.mask & ~here & ~dispensable)) return false;

    // The leader has acquired all that its key ever released: no older meeting is mixed into this one.
    void* key = &threads_[leader].tsan_key;
    for (Lanes left = here; left; left &= left - 1)
        threads_[first_of_warp + __builtin_ctz(left)].fiber->release_for_tsan(key);
    for (Lanes left = here; left; left &= left - 1) {
        Thread& thread = threads_[first_of_warp + __builtin_ctz(left)];
        const unsigned source = thread.wait.source_lane;
        // What a lane that takes no part would give is undefined; NaN or -1 is hard to overlook.
        const uint64_t shuffled = source < 32 && here >> source & 1u ? threads_[first_of_warp + source].wait.value : ~0ull;
        thread.wait.result = meeting.operation == Operation::shuffle ? shuffled : in_favour;
        thread.wait.participants = here;
        thread.state = State::released;
        thread.fiber->acquire_for_tsan(key);
    }
    return true;
}

bool Scheduler::release_block() {
    const Wait& meeting = threads_[0].wait;
    for (const Thread& thread : threads_) {
        const bool at_barrier = thread.state == State::waiting && thread.wait.operation == Operation::block_barrier;
        if (!at_barrier || !same_meeting(meeting, thread.wait)) return false;
    }
    void* key = &threads_[0].tsan_key;
    for (Thread& thread : threads_) thread.fiber->release_for_tsan(key);
    for (Thread& thread : threads_) {
        thread.state = State::released;
        thread.fiber->acquire_for_tsan(key);
    }
    return true;
}

// Nobody can go on. A warp that is stuck keeps its block from every barrier, so it is named first.
void Scheduler::explain_standstill() {
    const Thread* stuck = nullptr;
    for (const Thread& thread : threads_) {
        if (thread.state != State::waiting) continue;
        const bool in_warp = thread.wait.operation != Operation::block_barrier;
        if (!stuck || in_warp) stuck = &thread;
        if (in_warp) break;
    }
    fault.code = stuck->wait.operation == Operation::block_barrier ? divergent_barrier : divergent_warp_operation;
    fault.text = "block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                 std::to_string(blockIdx.z) + "): " + described(*stuck) + "; " + find_missing(*stuck);
}

std::string Scheduler::find_missing(const Thread& waiting) const {
    const size_t number = &waiting - threads_.data();
    const bool in_warp = waiting.wait.operation != Operation::block_barrier;
    if (in_warp && !(waiting.wait.mask >> number % warpSize & 1u)) return "its mask does not name its own lane";
    const size_t first = in_warp ? number / warpSize * warpSize : 0;
    const size_t end = in_warp ? first + warpSize : threads_.size();
    for (size_t i = first; i < end; ++i) {
        if (in_warp && !(waiting.wait.mask >> (i - first) & 1u)) continue;
        if (i >= threads_.size()) return "the block has no lane " + std::to_string(i - first) + " there";
        const bool here = threads_[i].state == State::waiting && same_meeting(waiting.wait, threads_[i].wait);
        // Lanes that exited keep only a shuffle from going on.
        const bool excused = threads_[i].state == State::exited &&
                             (waiting.wait.operation == Operation::vote || waiting.wait.operation == Operation::warp_barrier);
        if (!here && !excused) return described(threads_[i]);
    }
    return "nobody is missing";
}

std::string Scheduler::described(const Thread& thread) const {
    std::string text = "thread (" + std::to_string(thread.index.x) + ", " + std::to_string(thread.index.y) + ", " +
                       std::to_string(thread.index.z) + ") ";
    if (thread.state == State::exited) return text + "has exited";
    text += std::string("waits at ") + name_of(thread.wait.operation) + ", " + thread.wait.site.file + ":" +
            std::to_string(thread.wait.site.line);
    if (thread.wait.operation == Operation::block_barrier) return text;
    char mask[16];
    snprintf(mask, sizeof mask, "%#010x", thread.wait.mask);
    return text + ", mask " + mask;
}

}  // namespace

void block_barrier(Site site) {
    Wait wait{Operation::block_barrier, site};
    scheduler.wait(wait);
}

void warp_barrier(unsigned mask, Site site) {
    Wait wait{Operation::warp_barrier, site, mask};
    scheduler.wait(wait);
}

Vote warp_vote(unsigned mask, bool in_favour, Site site) {
    Wait wait{Operation::vote, site, mask, in_favour};
    scheduler.wait(wait);
    return {unsigned(wait.result), wait.participants};
}

uint64_t warp_shuffle(unsigned mask, uint64_t value, unsigned source_lane, Site site) {
    Wait wait{Operation::shuffle, site, mask, value, source_lane};
    scheduler.wait(wait);
    return wait.result;
}

unsigned lane() { return scheduler.lane(); }

Code run(dim3 grid, dim3 block, void (*call)(const void*), const void* context) {
    const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
    return scheduler.launch(grid, block, call, context);
}

}  // namespace cuda_on_cpu

void cuda_on_cpu_set_seed(unsigned seed) { cuda_on_cpu::scheduler.seed = seed; }

const char* cuda_on_cpu_fault() { return cuda_on_cpu::scheduler.fault.text.c_str(); }
