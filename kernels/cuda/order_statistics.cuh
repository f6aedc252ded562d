// Exact order statistics of 16-bit pixels by radix counting: pass 0 counts upper bytes, pass 1 the lower bytes of the
// values whose upper byte was selected. The image is read twice and is neither copied nor sorted.
//
// Roofline: 2 bytes per pixel and pass. The second pass reads from L2 if the pixels fit there.
//
// The regions of a set are distributed over many blocks. Each block counts in shared memory and adds to the counts of
// the set; the last block to finish selects the bins and resets the counts to zero for the next call. A region may be
// empty; a set without pixels has the window (0, 0).
#pragma once
#include "types.cuh"

constexpr int kStatisticsThreads = 256;
constexpr int kStatisticsWarps = kStatisticsThreads / 32;

// Histograms of one block: one per pair of warps reduces contention.
constexpr int kHistograms = kStatisticsWarps / 2;

// Pass 0 counts upper bytes. Pass 1 counts the lower bytes of values in the bin of either statistic.
template <int PASS>
struct ByteCounter {
    u32 (*counts)[256];   // one histogram in pass 0, one for each statistic in pass 1
    u32 bin[2];
    u32 run_key;
    u32 run;

    // Neighbouring pixels often have equal keys: a run of them is added at once.
    __device__ __forceinline__ void add(u32 value) {
        if (PASS == 0) {
            const u32 key = value >> 8;
            if (key == run_key) {
                ++run;
                return;
            }
            flush();
            run_key = key;
            run = 1;
        } else {
#pragma unroll
            for (int k = 0; k < 2; ++k)
                if (value >> 8 == bin[k]) atomicAdd(&counts[k][value & 255u], 1u);
        }
    }

    __device__ __forceinline__ void flush() {
        if (PASS == 0 && run > 0) atomicAdd(&counts[0][run_key], run);
        run = 0;
    }
};

template <class Counter>
static __device__ __forceinline__ void count_pair(Counter& counter, u32 pair, u32 sign) {
    counter.add((pair & 0xffffu) ^ sign);
    counter.add((pair >> 16) ^ sign);
}

// Count one row with one warp: 16 bytes per lane where the row is aligned, single pixels before and after.
template <class Counter>
static __device__ __forceinline__ void count_row(Counter& counter, const u16* row, int columns, u32 sign) {
    const int lane = threadIdx.x & 31;
    const int misaligned = (int)(((unsigned long long)row >> 1) & 7u);
    int head = misaligned ? 8 - misaligned : 0;
    if (head > columns) head = columns;
    const int vectors = (columns - head) >> 3;
    const int tail = head + vectors * 8;
    if (lane < head) counter.add(row[lane] ^ sign);
    const uint4* body = (const uint4*)(row + head);
    for (int k = lane; k < vectors; k += 32) {
        const uint4 eight = __ldg(body + k);
        count_pair(counter, eight.x, sign);
        count_pair(counter, eight.y, sign);
        count_pair(counter, eight.z, sign);
        count_pair(counter, eight.w, sign);
    }
    if (tail + lane < columns) counter.add(row[tail + lane] ^ sign);
}

// Find the bin that contains a rank, and the remaining rank within it. Called by a whole block of 256 threads.
static __device__ __forceinline__ void pick_bin(u32 count, u32 rank, u32* bin, u32* rest) {
    __shared__ u32 warp_totals[kStatisticsWarps];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 upto = count;
#pragma unroll
    for (int distance = 1; distance < 32; distance <<= 1) {
        const u32 before = __shfl_up_sync(0xffffffffu, upto, distance);
        if (lane >= distance) upto += before;
    }
    if (lane == 31) warp_totals[warp] = upto;
    __syncthreads();
    for (int k = 0; k < warp; ++k) upto += warp_totals[k];
    if (rank < upto && rank >= upto - count) {
        *bin = threadIdx.x;
        *rest = rank - (upto - count);
    }
    __syncthreads();
}

// One pass. Grid: (blocks per region, regions); block: 256 threads.
template <int PASS>
static __device__ __forceinline__ void statistics_pass(
    const u16* __restrict__ arena, const Region* __restrict__ regions, const RankRequest* __restrict__ requests,
    Selection* __restrict__ selections, Window* __restrict__ windows) {
    constexpr int kTables = PASS == 0 ? kHistograms : 2;
    __shared__ u32 counts[kTables][256];
    __shared__ u32 picked[2][2];
    __shared__ u32 is_last;
    const int thread = threadIdx.x, warp = thread >> 5;
    const Region region = regions[blockIdx.y];
    Selection& selection = selections[region.set];

#pragma unroll
    for (int table = 0; table < kTables; ++table) counts[table][thread] = 0u;
    // Without pixels no thread selects a bin.
    if (thread < 4) picked[thread >> 1][thread & 1] = 0u;
    __syncthreads();

    ByteCounter<PASS> counter;
    counter.run_key = 0u;
    counter.run = 0u;
    counter.bin[0] = PASS == 0 ? 0u : selection.bin[0];
    counter.bin[1] = PASS == 0 ? 0u : selection.bin[1];
    counter.counts = PASS == 0 ? &counts[warp % kTables] : counts;
    const u16* first = arena + region.offset;
    for (int row = blockIdx.x * kStatisticsWarps + warp; row < region.rows; row += gridDim.x * kStatisticsWarps)
        count_row(counter, first + (i64)row * region.pitch, region.columns, region.sign);
    counter.flush();
    __syncthreads();

    if (PASS == 0) {
        u32 total = 0u;
#pragma unroll
        for (int table = 0; table < kTables; ++table) total += counts[table][thread];
        if (total) atomicAdd(&selection.counts[0][thread], total);
    } else {
#pragma unroll
        for (int k = 0; k < 2; ++k)
            if (counts[k % kTables][thread]) atomicAdd(&selection.counts[k][thread], counts[k % kTables][thread]);
    }
    // Make the counts of this block visible before it is counted as done.
    __threadfence();
    __syncthreads();
    if (thread == 0)
        is_last = atomicAdd(&selection.blocks_done, 1u) + 1u == requests[region.set].blocks ? 1u : 0u;
    __syncthreads();
    if (!is_last) return;

    __threadfence();
    // Atomic reads bypass the L1 cache, which may hold values from before other blocks added to them.
    u32 found[2];
    found[0] = atomicAdd(&selection.counts[0][thread], 0u);
    found[1] = PASS == 0 ? found[0] : atomicAdd(&selection.counts[1][thread], 0u);
#pragma unroll
    for (int k = 0; k < 2; ++k)
        pick_bin(found[k], PASS == 0 ? requests[region.set].rank[k] : selection.rank[k], &picked[k][0], &picked[k][1]);
    selection.counts[0][thread] = 0u;
    selection.counts[1][thread] = 0u;
    if (thread == 0) {
        if (PASS == 0) {
            selection.bin[0] = picked[0][0];
            selection.bin[1] = picked[1][0];
            selection.rank[0] = picked[0][1];
            selection.rank[1] = picked[1][1];
        } else {
            Window window;
            window.low = (float)(selection.bin[0] << 8 | picked[0][0]);
            window.high = (float)(selection.bin[1] << 8 | picked[1][0]);
            windows[region.set] = window;
        }
        selection.blocks_done = 0u;
    }
}

KERNEL(kStatisticsThreads) order_statistics_upper(
    const u16* arena, const Region* regions, const RankRequest* requests, Selection* selections, Window* windows) {
    statistics_pass<0>(arena, regions, requests, selections, windows);
}

KERNEL(kStatisticsThreads) order_statistics_lower(
    const u16* arena, const Region* regions, const RankRequest* requests, Selection* selections, Window* windows) {
    statistics_pass<1>(arena, regions, requests, selections, windows);
}
