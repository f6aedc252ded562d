// Contrast: the standard deviation of each network input in units of its window (0 to 1). Each channel is multiplied by
// the standard deviation of the normalisation; its mean is not added back, as in the reference.
//
// One pass with Chan's update for combined samples: a thread keeps count, mean and sum of squared deviations of what it
// has read, eight values at a time, and the block combines the threads in the same way. No two large numbers are
// subtracted, so a mean far from zero costs no precision: for inputs of 3 × 456² the CPU build is off by 6 · 10⁻⁸, one
// unit of float32. Sums of squares about zero would need float64 or a second pass.
//
// Roofline: each value is read once, 2 or 4 bytes, mostly from L2, where `preprocess` has just written it. One block
// per input, so the bound is the L2 bandwidth of one multiprocessor, about 64 bytes per clock: 0.62 M values of an
// input of 3 × 456² take 11 µs in FP16 and 22 µs in FP32 at 1.75 GHz, for all inputs of a study at once. Computed, not
// measured.
#pragma once
#include "types.cuh"

constexpr int kContrastThreads = 1024;
constexpr int kContrastWarps = kContrastThreads / 32;

// Values that a thread reads and combines at a time: one division per group.
constexpr int kGroup = 8;

// Count, mean and sum of squared deviations of a sample.
struct Moments {
    float count;
    float mean;
    float squares;

    __device__ __forceinline__ void join(float other_count, float other_mean, float other_squares) {
        if (other_count == 0.0f) return;
        const float both = count + other_count;
        const float share = other_count / both, distance = other_mean - mean;
        squares += fmaf(distance * distance, count * share, other_squares);
        mean = fmaf(distance, share, mean);
        count = both;
    }
};

static __device__ __forceinline__ void read_group(const float* from, float (&values)[kGroup]) {
    const float4 first = __ldg((const float4*)from), second = __ldg((const float4*)from + 1);
    values[0] = first.x;
    values[1] = first.y;
    values[2] = first.z;
    values[3] = first.w;
    values[4] = second.x;
    values[5] = second.y;
    values[6] = second.z;
    values[7] = second.w;
}

static __device__ __forceinline__ void read_group(const Half* from, float (&values)[kGroup]) {
    const uint4 read = __ldg((const uint4*)from);
    const u32 pairs[kGroup / 2] = {read.x, read.y, read.z, read.w};
#pragma unroll
    for (int k = 0; k < kGroup / 2; ++k) {
        values[2 * k] = value_of(Half{(u16)(pairs[k] & 0xffffu)});
        values[2 * k + 1] = value_of(Half{(u16)(pairs[k] >> 16)});
    }
}

static __device__ __forceinline__ void join_group(Moments& moments, const float (&values)[kGroup], float std) {
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) sum += values[k];
    const float mean = sum * (1.0f / kGroup);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
        const float distance = values[k] - mean;
        squares = fmaf(distance, distance, squares);
    }
    moments.join((float)kGroup, mean * std, squares * std * std);
}

// Read one channel with a whole block: groups where it is aligned, single values before and after them.
template <class T>
static __device__ __forceinline__ void join_channel(Moments& moments, const T* channel, int pixels, float std) {
    constexpr int kVector = 16 / (int)sizeof(T);
    const int misaligned = (int)((unsigned long long)channel / sizeof(T)) & (kVector - 1);
    const int head = min(misaligned ? kVector - misaligned : 0, pixels);
    const int tail = head + (pixels - head) / kGroup * kGroup;
    for (int at = head + (int)threadIdx.x * kGroup; at < tail; at += kContrastThreads * kGroup) {
        float values[kGroup];
        read_group(channel + at, values);
        join_group(moments, values, std);
    }
    const int thread = threadIdx.x;
    if (thread < head) moments.join(1.0f, value_of(channel[thread]) * std, 0.0f);
    if (tail + thread < pixels) moments.join(1.0f, value_of(channel[tail + thread]) * std, 0.0f);
}

// Combine the lanes of a warp; lane 0 ends with the result.
static __device__ __forceinline__ void join_warp(Moments& moments) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) {
        const float count = __shfl_xor_sync(0xffffffffu, moments.count, distance);
        const float mean = __shfl_xor_sync(0xffffffffu, moments.mean, distance);
        const float squares = __shfl_xor_sync(0xffffffffu, moments.squares, distance);
        moments.join(count, mean, squares);
    }
}

// Grid: inputs; block: kContrastThreads.
template <class T>
static __device__ __forceinline__ void contrast_of_input(
    const T* __restrict__ inputs, const float* __restrict__ stds, float* __restrict__ contrasts, int channels,
    int pixels) {
    __shared__ Moments warps[kContrastWarps];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const T* channel = inputs + (i64)blockIdx.x * channels * pixels;
    Moments moments = {0.0f, 0.0f, 0.0f};
    for (int number = 0; number < channels; ++number, channel += pixels)
        join_channel(moments, channel, pixels, stds[number]);
    join_warp(moments);
    if (lane == 0) warps[warp] = moments;
    __syncthreads();
    if (warp != 0) return;
    moments = warps[lane];
    join_warp(moments);
    if (lane == 0) contrasts[blockIdx.x] = sqrtf(moments.squares / moments.count);
}

KERNEL(kContrastThreads) input_contrast_f32(
    const float* inputs, const float* stds, float* contrasts, int channels, int pixels) {
    contrast_of_input(inputs, stds, contrasts, channels, pixels);
}

KERNEL(kContrastThreads) input_contrast_f16(
    const Half* inputs, const float* stds, float* contrasts, int channels, int pixels) {
    contrast_of_input(inputs, stds, contrasts, channels, pixels);
}
