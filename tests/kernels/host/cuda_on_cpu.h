// CUDA C++ for g++: included by force ahead of an unmodified .cu file, which then runs on the CPU in tests.
// No CUDA toolkit is needed. Not there: extern __shared__, textures, cooperative groups, streams on the device.
//
// Every kernel K that is named with CUDA_ON_CPU_EXPORT(K) is launched by
//     int launch_K(const char* parameters, gridx, gridy, gridz, blockx, blocky, blockz)
// whose parameter buffer is cuLaunchKernel's: arguments one after the other, each at its natural alignment.
// It returns a cuda_on_cpu::Code. After a fault the launch has stopped in mid-work.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <tuple>
#include <type_traits>

#define CUDA_ON_CPU_API extern "C" __attribute__((visibility("default")))

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))

#ifdef CUDA_ON_CPU_SANITISED
// AddressSanitizer guards the ends of plain statics, not of thread-local ones.
#define __shared__ static
#else
// All thread-local variables of a library lie in one piece, which can be filled before each block. A section of
// its own would not do: g++ before 14 ignores the attribute within templates.
#define __shared__ static thread_local
#endif

// --- built-in types and variables

#define CUDA_ON_CPU_VECTORS(type, name, align2, align4)                                                       \
    struct alignas(align2) name##2 { type x, y; };                                                            \
    struct name##3 { type x, y, z; };                                                                         \
    struct alignas(align4) name##4 { type x, y, z, w; };                                                      \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                          \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                               \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CUDA_ON_CPU_VECTORS(signed char, char, 2, 4)
CUDA_ON_CPU_VECTORS(unsigned char, uchar, 2, 4)
CUDA_ON_CPU_VECTORS(short, short, 4, 8)
CUDA_ON_CPU_VECTORS(unsigned short, ushort, 4, 8)
CUDA_ON_CPU_VECTORS(int, int, 8, 16)
CUDA_ON_CPU_VECTORS(unsigned, uint, 8, 16)
CUDA_ON_CPU_VECTORS(float, float, 8, 16)
CUDA_ON_CPU_VECTORS(double, double, 16, 16)
#undef CUDA_ON_CPU_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set by the scheduler whenever it goes from one CUDA thread to another.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// --- what cuda_on_cpu.cpp does

namespace cuda_on_cpu {

enum Code {
    ok = 0,
    divergent_barrier = 1,         // not every thread of the block came to the same __syncthreads
    divergent_warp_operation = 2,  // not every lane of the mask came to the same __shfl_sync, vote or __syncwarp
    invalid_launch = 3,            // a grid or block that no GPU takes
};

// Where a thread waits; as a default argument, the place of the call.
struct Site {
    const char* file;
    int line;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

struct Vote {
    unsigned in_favour;
    unsigned voters;
};

void block_barrier(Site site);
void warp_barrier(unsigned mask, Site site);
Vote warp_vote(unsigned mask, bool in_favour, Site site);
uint64_t warp_shuffle(unsigned mask, uint64_t value, unsigned source_lane, Site site);
unsigned lane();

// Runs call(context) as each thread of each block. The text of a fault is kept for cuda_on_cpu_fault().
Code run(dim3 grid, dim3 block, void (*call)(const void* context), const void* context);

class ParameterReader {
  public:
    explicit ParameterReader(const char* buffer) : buffer_(buffer) {}

    template <class T>
    T next() {
        offset_ = (offset_ + alignof(T) - 1) / alignof(T) * alignof(T);
        T value;
        memcpy(&value, buffer_ + offset_, sizeof value);
        offset_ += sizeof value;
        return value;
    }

  private:
    const char* buffer_;
    size_t offset_ = 0;
};

template <class... Arguments>
Code launch(void (*kernel)(Arguments...), const char* parameters, dim3 grid, dim3 block) {
    ParameterReader reader(parameters);
    // Braces, because they evaluate from left to right.
    const std::tuple<Arguments...> arguments{reader.next<Arguments>()...};
    const auto call = [&] { std::apply(kernel, arguments); };
    return run(grid, block, [](const void* context) { (*static_cast<decltype(&call)>(context))(); }, &call);
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_EXPORT(kernel)                                                                            \
    CUDA_ON_CPU_API int launch_##kernel(const char* parameters, unsigned gx, unsigned gy, unsigned gz,        \
                                        unsigned bx, unsigned by, unsigned bz) {                              \
        return cuda_on_cpu::launch(::kernel, parameters, dim3(gx, gy, gz), dim3(bx, by, bz));                 \
    }

// Order of blocks and threads: as numbered for 0, shuffled for others. Holds for the launches that follow.
CUDA_ON_CPU_API void cuda_on_cpu_set_seed(unsigned seed);
// What went wrong in the last launch, as a sentence; empty if nothing did.
CUDA_ON_CPU_API const char* cuda_on_cpu_fault();

// --- waiting for other threads

inline void __syncthreads(cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) { cuda_on_cpu::block_barrier(site); }

inline void __syncwarp(unsigned mask = 0xffffffffu, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    cuda_on_cpu::warp_barrier(mask, site);
}

// Blocks run one after the other and threads change places only where they wait: memory is always in order.
inline void __threadfence() {}
inline void __threadfence_block() {}

inline unsigned __ballot_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::warp_vote(mask, predicate != 0, site).in_favour;
}

inline int __any_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::warp_vote(mask, predicate != 0, site).in_favour != 0;
}

inline int __all_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    const cuda_on_cpu::Vote vote = cuda_on_cpu::warp_vote(mask, predicate != 0, site);
    return vote.in_favour == vote.voters;
}

namespace cuda_on_cpu {

template <class T>
T shuffle(unsigned mask, T value, unsigned source_lane, Site site) {
    static_assert(std::is_arithmetic<T>::value, "CUDA shuffles numbers only");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = warp_shuffle(mask, bits, source_lane, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace cuda_on_cpu

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    const unsigned segment = cuda_on_cpu::lane() & ~(width - 1u);
    return cuda_on_cpu::shuffle(mask, value, segment + (source & (width - 1u)), site);
}

// Past the end of its segment of `width` lanes a lane gets its own value back.
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    const unsigned lane = cuda_on_cpu::lane(), place = lane & (width - 1u);
    return cuda_on_cpu::shuffle(mask, value, place >= delta ? lane - delta : lane, site);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    const unsigned lane = cuda_on_cpu::lane(), place = lane & (width - 1u);
    return cuda_on_cpu::shuffle(mask, value, delta < width - place ? lane + delta : lane, site);
}

// Segments before its own are within reach of a lane, those after it are not.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    const unsigned lane = cuda_on_cpu::lane(), source = lane ^ static_cast<unsigned>(lane_mask);
    return cuda_on_cpu::shuffle(mask, value, source < (lane | (width - 1u)) + 1u ? source : lane, site);
}

// --- atomics: relaxed, as on the device, so that ThreadSanitizer does not take them for barriers

namespace cuda_on_cpu {

template <class T>
struct Same {
    using type = T;
};

template <class T, class Change>
T exchange_atomically(T* address, Change change) {
    T before, after;
    __atomic_load(address, &before, __ATOMIC_RELAXED);
    do {
        after = change(before);
    } while (!__atomic_compare_exchange(address, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}

}  // namespace cuda_on_cpu

template <class T>
T atomicAdd(T* address, typename cuda_on_cpu::Same<T>::type value) {
    if constexpr (std::is_integral<T>::value)
        return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
    else
        return cuda_on_cpu::exchange_atomically(address, [=](T old) { return old + value; });
}

template <class T>
T atomicMax(T* address, typename cuda_on_cpu::Same<T>::type value) {
    static_assert(std::is_integral<T>::value, "CUDA has atomicMax for integers only");
    return cuda_on_cpu::exchange_atomically(address, [=](T old) { return old > value ? old : value; });
}

template <class T>
T atomicMin(T* address, typename cuda_on_cpu::Same<T>::type value) {
    static_assert(std::is_integral<T>::value, "CUDA has atomicMin for integers only");
    return cuda_on_cpu::exchange_atomically(address, [=](T old) { return old < value ? old : value; });
}

template <class T>
T atomicExch(T* address, typename cuda_on_cpu::Same<T>::type value) {
    return cuda_on_cpu::exchange_atomically(address, [=](T) { return value; });
}

template <class T>
T atomicCAS(T* address, typename cuda_on_cpu::Same<T>::type expected, typename cuda_on_cpu::Same<T>::type value) {
    return cuda_on_cpu::exchange_atomically(address, [=](T old) { return old == expected ? value : old; });
}

// --- loads, bits, numbers

template <class T>
T __ldg(const T* address) {
    return *address;
}

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }

template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}

template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}

inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float value) { return fminf(fmaxf(value, 0.0f), 1.0f); }  // NaN becomes 0, as in CUDA

namespace cuda_on_cpu {

// Unlike a cast these conversions are defined for every float: NaN becomes 0, and what is too large the limit.
template <class Integer>
Integer saturated(float whole) {
    if (isnan(whole)) return 0;
    constexpr bool is_signed = std::is_signed<Integer>::value;
    constexpr double lowest = is_signed ? INT32_MIN : 0, highest = is_signed ? INT32_MAX : UINT32_MAX;
    return static_cast<Integer>(fmin(fmax(whole, lowest), highest));
}

}  // namespace cuda_on_cpu

inline int __float2int_rn(float value) { return cuda_on_cpu::saturated<int>(nearbyintf(value)); }
inline int __float2int_rz(float value) { return cuda_on_cpu::saturated<int>(truncf(value)); }
inline int __float2int_rd(float value) { return cuda_on_cpu::saturated<int>(floorf(value)); }
inline int __float2int_ru(float value) { return cuda_on_cpu::saturated<int>(ceilf(value)); }
inline unsigned __float2uint_rn(float value) { return cuda_on_cpu::saturated<unsigned>(nearbyintf(value)); }
inline unsigned __float2uint_rz(float value) { return cuda_on_cpu::saturated<unsigned>(truncf(value)); }
inline unsigned __float2uint_rd(float value) { return cuda_on_cpu::saturated<unsigned>(floorf(value)); }
inline unsigned __float2uint_ru(float value) { return cuda_on_cpu::saturated<unsigned>(ceilf(value)); }
inline float __int2float_rn(int value) { return static_cast<float>(value); }
inline float __uint2float_rn(unsigned value) { return static_cast<float>(value); }

// --- half precision as its 16 bits (IEEE 754 binary16), for the host branch of kernels that use PTX on the device

// To nearest, ties to even. NaN becomes 0x7fff, as from PTX's cvt.rn.f16.f32.
static inline unsigned short host_half_bits(float value) {
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    // From 65520 on, halfway to the first number that is too large.
    if (magnitude >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        // Below 2^-14: floats from 0.5 to 1 have the spacing of half's subnormals, so this addition rounds.
        const float sum = __uint_as_float(magnitude) + 0.5f;
        return static_cast<unsigned short>(sign | (__float_as_uint(sum) - __float_as_uint(0.5f)));
    }
    const unsigned rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<unsigned short>(sign | ((rounded >> 13) - (112u << 10)));  // exponent bias 127 -> 15
}

static inline float host_half_value(unsigned short bits) {
    const unsigned sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude < 0x400u) {
        const float value = static_cast<float>(magnitude) * 0x1p-24f;
        return sign ? -value : value;
    }
    return __uint_as_float(sign | (magnitude + (112u << 10)) << 13);
}
