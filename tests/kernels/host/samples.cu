// Kernels whose results are known: what the CPU build makes of CUDA's built-ins.

#define KERNEL extern "C" __global__ void

static __device__ __forceinline__ unsigned thread_number() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

static __device__ __forceinline__ unsigned global_number() {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    return block * blockDim.x * blockDim.y * blockDim.z + thread_number();
}

KERNEL __launch_bounds__(64) indices(uint3* threads, uint3* blocks) {
    threads[global_number()] = threadIdx;
    blocks[global_number()] = blockIdx;
}

KERNEL order_of_threads(unsigned* begun, unsigned* order) { order[global_number()] = atomicAdd(begun, 1u); }

KERNEL order_after_barrier(unsigned* begun, unsigned* passed, unsigned* order) {
    atomicAdd(begun, 1u);
    __syncthreads();
    order[thread_number()] = *begun == blockDim.x ? atomicAdd(passed, 1u) : 0xffffffffu;
}

KERNEL shuffles(const int* in, int* out, int amount, int width) {
    const int i = threadIdx.x, n = blockDim.x;
    out[i] = __shfl_sync(0xffffffffu, in[i], amount, width);
    out[n + i] = __shfl_up_sync(0xffffffffu, in[i], amount, width);
    out[2 * n + i] = __shfl_down_sync(0xffffffffu, in[i], amount, width);
    out[3 * n + i] = __shfl_xor_sync(0xffffffffu, in[i], amount, width);
}

KERNEL shuffle_wide_types(double* numbers, long long* whole) {
    const int i = threadIdx.x;
    numbers[i] = __shfl_xor_sync(0xffffffffu, numbers[i], 1);
    whole[i] = __shfl_xor_sync(0xffffffffu, whole[i], 1);
}

// Lanes 8 … 15 read from lanes that take no part.
KERNEL shuffle_of_half_a_warp(const float* in, float* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0x0000ffffu, in[threadIdx.x], 8);
}

KERNEL votes(const int* in, unsigned* out) {
    const int i = threadIdx.x, n = blockDim.x;
    const unsigned mask = i % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    out[i] = __ballot_sync(mask, in[i]);
    out[n + i] = __any_sync(mask, in[i]);
    out[2 * n + i] = __all_sync(mask, in[i]);
}

KERNEL votes_after_exit(unsigned* out) {
    if (threadIdx.x >= 20) return;
    __syncwarp();
    const bool all = __all_sync(0xffffffffu, 1);
    out[threadIdx.x] = all ? __ballot_sync(0xffffffffu, 1) : 0u;
}

template <class T>
static __device__ __forceinline__ T block_sum(T value) {
    __shared__ T values[128];
    values[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half >>= 1) {
        if ((int)threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
        __syncthreads();
    }
    return values[0];
}

KERNEL block_sums(const int* in, int* whole, double* numbers) {
    const int value = in[global_number()];
    const int sum = block_sum(value);
    const double half_sum = block_sum(0.5 * value);
    if (threadIdx.x == 0) {
        whole[blockIdx.x] = sum;
        numbers[blockIdx.x] = half_sum;
    }
}

KERNEL histogram(const unsigned char* in, int count, unsigned* counts, int* extremes, float* total) {
    __shared__ unsigned own[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) own[i] = 0u;
    __syncthreads();
    for (int i = global_number(); i < count; i += gridDim.x * blockDim.x) {
        atomicAdd(&own[in[i]], 1u);
        atomicMin(&extremes[0], in[i]);
        atomicMax(&extremes[1], in[i]);
        atomicAdd(total, in[i]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&counts[i], own[i]);
}

KERNEL exchanges(unsigned* places) {
    places[2 + threadIdx.x] = atomicExch(&places[0], threadIdx.x);
    atomicCAS(&places[1], threadIdx.x, threadIdx.x + 1u);
}

struct Mixed {
    char first;
    double second;
};

KERNEL parameters(char a, double b, short c, Mixed d, const float* nothing, float e, bool f, double* out) {
    const double values[] = {(double)a, b, (double)c, (double)d.first, d.second, e, (double)f, nothing ? 1.0 : 0.0};
    for (int i = 0; i < 8; ++i) out[i] = values[i];
}

KERNEL to_half(const float* in, unsigned short* out, int count) {
    const int i = global_number();
    if (i < count) out[i] = host_half_bits(in[i]);
}

KERNEL from_half(const unsigned short* in, float* out) { out[global_number()] = host_half_value(in[global_number()]); }

KERNEL conversions(const float* in, int* whole, unsigned* natural, float* numbers) {
    const int i = threadIdx.x, n = blockDim.x;
    whole[i] = __float2int_rn(in[i]);
    whole[n + i] = __float2int_rz(in[i]);
    whole[2 * n + i] = __float2int_rd(in[i]);
    whole[3 * n + i] = __float2int_ru(in[i]);
    natural[i] = __float2uint_rn(in[i]);
    natural[n + i] = __float_as_uint(in[i]);
    numbers[i] = __saturatef(in[i]);
    numbers[n + i] = __uint_as_float(natural[n + i]);
}
