// One kernel for each kind of mistake that the CPU builds must catch, and one without any.
// Launched with one block of 64 threads and arrays of 64 elements.

#define KERNEL extern "C" __global__ void

KERNEL global_read_out_of_bounds(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }

KERNEL global_write_out_of_bounds(const float* in, float* out) { out[threadIdx.x + 1] = in[threadIdx.x]; }

// Within the array for 64 elements. For 62 the last vector begins in the array and ends beyond it.
KERNEL vector_read(const float* in, float* out) { out[threadIdx.x] = __ldg((const float4*)in + threadIdx.x / 4).w; }

KERNEL misaligned_vector(const float* in, float* out) {
    if (threadIdx.x < 15) out[threadIdx.x] = ((const float4*)(in + 1))[threadIdx.x].x;
}

template <class T>
static __device__ __forceinline__ T* neighbour(T* place) {
    return place + 1;
}

// Through a pointer, where no bound is known to the compiler.
KERNEL shared_out_of_bounds(const float* in, float* out) {
    __shared__ float kept[64];
    kept[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = *neighbour(kept + threadIdx.x);
}

template <class T>
static __device__ __forceinline__ void maximum_of_half_written(const T* in, T* out) {
    __shared__ T kept[64];
    if (threadIdx.x < 32) kept[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    T most = 0;
    for (int k = 0; k < 64; ++k) most = fmaxf(most, kept[k]);
    out[threadIdx.x] = most;
}

KERNEL unwritten_shared_memory(const float* in, float* out) { maximum_of_half_written(in, out); }

KERNEL shared_race(const float* in, float* out) {
    __shared__ float sum;
    if (threadIdx.x == 0) sum = 0.0f;
    __syncthreads();
    sum += in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = sum;
}

KERNEL missing_barrier(const float* in, float* out) {
    __shared__ float kept[64];
    kept[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = kept[63 - threadIdx.x];
}

// A warp's barrier does not reach the other warp.
KERNEL warp_barrier_for_block_barrier(const float* in, float* out) {
    __shared__ float kept[64];
    kept[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    out[threadIdx.x] = kept[63 - threadIdx.x];
}

// Nor do halves of a warp wait for each other.
KERNEL half_warp_barrier_for_warp_barrier(const float* in, float* out) {
    __shared__ float kept[64];
    kept[threadIdx.x] = in[threadIdx.x];
    __syncwarp(threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
    out[threadIdx.x] = kept[threadIdx.x ^ 31];
}

KERNEL global_race(const float* in, float* out) { out[threadIdx.x / 2] = in[threadIdx.x]; }

KERNEL barrier_after_exit(const float* in, float* out) {
    if (threadIdx.x < 16) return;
    __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
}

KERNEL barriers_at_two_places(const float* in, float* out) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
}

KERNEL shuffle_after_exit(const float* in, float* out) {
    if (threadIdx.x % 32 == 31) return;
    out[threadIdx.x] = __shfl_down_sync(0xffffffffu, in[threadIdx.x], 1);
}

KERNEL shuffle_and_barrier(const float* in, float* out) {
    float value = in[threadIdx.x];
    if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(0xffffffffu, value, 1);
    __syncthreads();
    out[threadIdx.x] = value;
}

KERNEL vote_outside_of_mask(const float* in, float* out) {
    out[threadIdx.x] = __any_sync(0x0000ffffu, in[threadIdx.x] > 0.0f);
}

KERNEL cast_out_of_range(const float* in, float* out) { out[threadIdx.x] = (float)(int)(in[threadIdx.x] * 1e10f); }

// All means of working together, used as they should be.
KERNEL no_bug(const float* in, float* out) {
    __shared__ float kept[64], totals[2];
    __shared__ unsigned finished;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 0) finished = 0u;
    kept[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    const float mirrored = kept[threadIdx.x ^ 31];
    __syncwarp();
    kept[threadIdx.x] = mirrored;
    __syncwarp(lane < 16 ? 0x0000ffffu : 0xffff0000u);
    float total = kept[threadIdx.x ^ 15];
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) total += __shfl_down_sync(0xffffffffu, total, distance);
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    atomicAdd(&finished, __ballot_sync(0xffffffffu, lane < 8) == 0xffu ? 1u : 0u);
    __syncthreads();
    out[threadIdx.x] = finished == 64u ? totals[0] + totals[1] : -1.0f;
}
