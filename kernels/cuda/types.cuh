// What host and device share. `kernels/layouts.py` holds the same layouts as NumPy dtypes; the sizes and offsets
// below and there are asserted on both sides.
#pragma once

#define KERNEL extern "C" __global__ void __launch_bounds__

typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

// Positions in a source image are fixed point with 32 fractional bits: a position is exact to 2⁻³² pixels
// however large the image, and rounding down is a shift.
typedef i64 fixed32;

constexpr int kMaxCopies = 4;

// Values as the percentiles are ranked: stored values with the sign bit of signed ones turned over, so that
// unsigned order is the order of values. "Biased" below.
constexpr u32 kSignBit = 0x8000u;

// A rectangle of one slice whose pixels count for the statistics `set`.
struct Region {
    i64 offset;   // its first pixel, in pixels from the start of the arena
    int rows;
    int columns;
    int pitch;    // pixels from one row to the next
    int set;
    u32 sign;     // kSignBit where stored values are signed, else 0
    int unused;
};

// The window of one set: the biased values that become 0 and 1. `low` is above `high` where the rescale's slope
// is negative.
struct Window {
    float low;
    float high;
};

// Order statistics of one set while they are searched. All zero before the first use, and again after each.
struct Selection {
    u32 counts[2][256];
    u32 rank[2];      // what is left of each rank within its bin
    u32 bin[2];       // upper byte of each statistic
    u32 blocks_done;
    u32 unused[3];
};

// What is asked of one set: two ranks (0-based, ascending order of biased values), for the window's low and high
// end, and how many blocks count for it.
struct RankRequest {
    u32 rank[2];
    u32 blocks;
    u32 unused;
};

// One source slice that becomes `copies` output channels.
struct Plane {
    i64 offset;             // first pixel of the slice in the arena
    i64 output;             // first element of the first channel in the output
    fixed32 first_x;        // source position of the first tap of output pixel (0, 0)
    fixed32 first_y;
    fixed32 step_xx;        // … moves by these for each output pixel along x
    fixed32 step_yx;
    fixed32 step_xy;        // … and along y
    fixed32 step_yy;
    fixed32 tap_xx;         // … and by these from one tap along output x to the next
    fixed32 tap_yx;
    fixed32 tap_xy;
    fixed32 tap_yy;
    int extent_x;           // source pixels along the axis that position x runs on
    int extent_y;
    int stride_x;           // pixels in the arena from one such pixel to the next
    int stride_y;
    int taps_x;             // samples of the box prefilter along output x
    int taps_y;
    int window;
    u32 sign;
    int copies;
    float mean[kMaxCopies];
    float scale[kMaxCopies];  // 1 / standard deviation
    int unused;
};

// Where the pixels of one image's heatmaps lie: (x, y) → origin + x · along_x + y · along_y.
struct Frame {
    float source[3][2];     // along_x, along_y, origin: (column, row) of the source slice
    float patient[3][3];    // along_x, along_y, origin: LPS, mm
    float unused;
};

struct Keypoint {
    float x;                // heatmap pixels
    float y;
    float confidence;       // the peak's value; NaN where the map has a value that is not finite or below 0
    float column;           // source pixels
    float row;
    float patient[3];       // LPS, mm
};

struct Cord {
    float ap_mm;
    float transverse_mm;
    float ratio;            // AP ÷ transverse; NaN where the transverse diameter is 0
    float angle_degrees;    // between the diameters, 0–90
    float confidence;       // of the least certain point; NaN where that of any is
    u32 flags;
    u32 unused[2];
};

constexpr u32 kLowConfidence = 1u;
constexpr u32 kNotCrossing = 2u;
constexpr u32 kNotOrthogonal = 4u;
constexpr u32 kImplausibleSize = 8u;

// What is a cord; see engine/grading/cord.py for where the numbers come from.
struct CordLimits {
    float confidence;
    float angle_degrees;
    float ap_mm[2];
    float transverse_mm[2];
    u32 unused[2];
};

struct LevelChoice {
    int slice;              // of maximal compression near the level, or −1
    float ratio;
    float distance_mm;      // from the level to the nearest slice, measured or not
    u32 flags;              // of the slices near it, together, where none of them is sound
};

static_assert(sizeof(Region) == 32, "layouts.REGION");
static_assert(sizeof(Window) == 8, "layouts.WINDOW");
static_assert(sizeof(Selection) == 2080, "layouts.SELECTION");
static_assert(sizeof(RankRequest) == 16, "layouts.RANK_REQUEST");
static_assert(sizeof(Plane) == 168, "layouts.PLANE");
static_assert(sizeof(Frame) == 64, "layouts.FRAME");
static_assert(sizeof(Keypoint) == 32, "layouts.KEYPOINT");
static_assert(sizeof(Cord) == 32, "layouts.CORD");
static_assert(sizeof(CordLimits) == 32, "layouts.CORD_LIMITS");
static_assert(sizeof(LevelChoice) == 16, "layouts.LEVEL_CHOICE");

// Network inputs and outputs are FP32 or FP16. Half precision is kept as its 16 bits, so that no header of a
// toolkit is needed; the host build brings its own conversion.
struct Half {
    u16 bits;
};

static __device__ __forceinline__ void store(float* to, float value) { *to = value; }

static __device__ __forceinline__ void store(Half* to, float value) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(value));
#else
    to->bits = host_half_bits(value);
#endif
}

// Two neighbours in one write. `to` is aligned to both of them.
static __device__ __forceinline__ void store_pair(float* to, float first, float second) {
    *(float2*)to = make_float2(first, second);
}

static __device__ __forceinline__ void store_pair(Half* to, float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("{ .reg .b32 pair; cvt.rn.f16x2.f32 pair, %2, %1; st.global.b32 [%0], pair; }"
                 :: "l"(to), "f"(first), "f"(second) : "memory");
#else
    Half halves[2];
    store(halves, first);
    store(halves + 1, second);
    *(u32*)to = (u32)halves[0].bits | (u32)halves[1].bits << 16;
#endif
}

static __device__ __forceinline__ float value_of(float value) { return value; }

static __device__ __forceinline__ float value_of(Half value) {
#ifdef __CUDA_ARCH__
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    return host_half_value(value.bits);
#endif
}
