// Types shared by host and device. `kernels/layouts.py` defines the same layouts as NumPy dtypes; a test compiles the
// offset and size of every field against them.
#pragma once

#define KERNEL extern "C" __global__ void __launch_bounds__

typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

// Source positions are fixed-point numbers with 32 fractional bits: the resolution is 2⁻³² pixels for any image size,
// and rounding down is a shift.
typedef i64 fixed32;

constexpr int kMaxCopies = 4;

// Biased value: a stored value whose sign bit is inverted if it is signed, so that unsigned comparison orders values.
constexpr u32 kSignBit = 0x8000u;

// A rectangle of one slice. Its pixels are counted for the statistics of `set`.
struct Region {
    i64 offset;   // first pixel, in pixels from the start of the arena
    int rows;
    int columns;
    int pitch;    // pixels from one row to the next
    int set;      // index of the window that the pixels contribute to
    u32 sign;     // kSignBit if stored values are signed, else 0
    int unused;
};

// Intensity window of one set: the biased values that map to 0 and 1. `low` exceeds `high` if the rescale slope is
// negative.
struct Window {
    float low;
    float high;
};

// Working memory of one set's order statistics. Must be zero before the first use; each use leaves it zero.
struct Selection {
    u32 counts[2][256];
    u32 rank[2];      // remaining rank of each statistic within its bin
    u32 bin[2];       // upper byte of each statistic
    u32 blocks_done;
    u32 unused[3];
};

// Requested order statistics of one set: the ranks of the window's low and high end (0-based, ascending biased values)
// and the number of blocks that count pixels of the set.
struct RankRequest {
    u32 rank[2];
    u32 blocks;
    u32 unused;
};

// One source slice that is resampled and written to `copies` consecutive output channels.
struct Plane {
    i64 offset;             // first pixel of the slice in the arena
    i64 output;             // first element of the first channel in the output
    fixed32 first_x;        // source position of the first tap of output pixel (0, 0)
    fixed32 first_y;
    fixed32 step_xx;        // change of source x and y per output pixel along x
    fixed32 step_yx;
    fixed32 step_xy;        // change of source x and y per output pixel along y
    fixed32 step_yy;
    fixed32 tap_xx;         // change of source x and y per tap along output x
    fixed32 tap_yx;
    fixed32 tap_xy;         // change of source x and y per tap along output y
    fixed32 tap_yy;
    int extent_x;           // source pixels along the x axis of positions
    int extent_y;
    int stride_x;           // distance in the arena between neighbours along that axis, in pixels
    int stride_y;
    int taps_x;             // samples of the box prefilter along output x
    int taps_y;
    int window;             // index into the windows
    u32 sign;
    int copies;
    float mean[kMaxCopies];
    float scale[kMaxCopies];  // 1 / standard deviation
    int unused;
};

// Affine maps of heatmap pixels of one image: (x, y) → origin + x · along_x + y · along_y.
struct Frame {
    float source[3][2];     // along_x, along_y, origin: (column, row) of the source slice
    float patient[3][3];    // along_x, along_y, origin: LPS, mm
    float unused;
};

struct Keypoint {
    float x;                // heatmap pixels
    float y;
    float confidence;       // value of the peak; NaN if the map holds a value that is not finite or below 0
    float column;           // source pixels
    float row;
    float patient[3];       // LPS, mm
};

// Direction of the cord in one image: a unit vector, LPS. Zero measures the cord in the plane of the image.
struct Direction {
    float d[3];
};

// Measured in the plane across the direction of the cord.
struct Cord {
    float ap_mm;
    float transverse_mm;
    float ratio;            // AP ÷ transverse; NaN if the transverse diameter is 0
    float angle_degrees;    // between the diameters, 0–90
    u32 crossing;           // 1 if the diameters cross, else 0
};

static_assert(sizeof(Region) == 32, "layouts.REGION");
static_assert(sizeof(Window) == 8, "layouts.WINDOW");
static_assert(sizeof(Selection) == 2080, "layouts.SELECTION");
static_assert(sizeof(RankRequest) == 16, "layouts.RANK_REQUEST");
static_assert(sizeof(Plane) == 168, "layouts.PLANE");
static_assert(sizeof(Frame) == 64, "layouts.FRAME");
static_assert(sizeof(Keypoint) == 32, "layouts.KEYPOINT");
static_assert(sizeof(Direction) == 12, "layouts.DIRECTION");
static_assert(sizeof(Cord) == 20, "layouts.CORD");

// Network inputs and outputs are FP32 or FP16. FP16 values are stored as their 16 bits, so that no toolkit header is
// needed to compile; the host build supplies its own conversion.
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

// Write two neighbouring values at once. `to` must be aligned to the pair.
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
