// Raw pixels → network input in one pass: intensity window → affine crop and resampling with a box prefilter →
// normalisation by mean and standard deviation → channels. Outside the image the value is 0, the low end of the window.
// Every output element is written.
//
// The modality rescale needs no arithmetic: the ends of the window are stored values too, so slope and intercept cancel
// in (value − low) / (high − low).
//
// Roofline: 2 bytes per source pixel of the region, and 2 or 4 bytes per output element.
#pragma once
#include "types.cuh"

constexpr int kPreprocessThreads = 128;

// Adjacent output columns per thread of `preprocess`: FP16 is then written 4 bytes at a time.
constexpr int kColumns = 2;

// Output rows per block. A taller strip shares more source rows; a lower one keeps more blocks busy.
constexpr int kStripRows = 32;

// `preprocess` keeps the weights of up to this many taps of the box prefilter in registers.
constexpr int kMaxTaps = 4;

// 2⁻²⁴: weight of the lowest bit of a 24-bit fraction, which a float holds exactly.
constexpr float kFixed24 = 1.0f / 16777216.0f;

constexpr fixed32 kFixedOne = 1ll << 32;

static __device__ __forceinline__ int whole(fixed32 position) { return (int)(position >> 32); }

static __device__ __forceinline__ float fraction(fixed32 position) {
    return (float)((u32)position >> 8) * kFixed24;
}

struct Ramp {
    float low;
    float per_value;   // 0 if the window has no width: all output is 0 then

    __device__ __forceinline__ explicit Ramp(Window window) {
        low = window.low;
        per_value = window.high == window.low ? 0.0f : 1.0f / (window.high - window.low);
    }

    __device__ __forceinline__ float operator()(u32 biased) const {
        return __saturatef(((float)biased - low) * per_value);
    }
};

// Normalisation of each copy of a plane as value · scale + shift, in registers.
struct Normalisation {
    float scale[kMaxCopies];
    float shift[kMaxCopies];
    int copies;

    __device__ __forceinline__ explicit Normalisation(const Plane& plane) {
        copies = plane.copies;
#pragma unroll
        for (int copy = 0; copy < kMaxCopies; ++copy) {
            scale[copy] = copy < copies ? plane.scale[copy] : 0.0f;
            shift[copy] = copy < copies ? -plane.mean[copy] * plane.scale[copy] : 0.0f;
        }
    }

    __device__ __forceinline__ float operator()(float value, int copy) const {
        return fmaf(value, scale[copy], shift[copy]);
    }
};

// Weights of the source pixels base … base + TAPS along one axis for one output position: the mean of `taps` bilinear
// samples. Pixels that no sample reaches have weight 0.
template <int TAPS>
static __device__ __forceinline__ void tap_weights(
    fixed32 first, fixed32 tap, int taps, int base, float (&weights)[TAPS + 1]) {
    constexpr i64 kFar = (i64)(kMaxTaps + 2) << 24;
#pragma unroll
    for (int k = 0; k <= TAPS; ++k) weights[k] = 0.0f;
    for (int t = 0; t < taps; ++t) {
        // Relative to the base pixel, with the 24 fractional bits that a float holds.
        const i64 from_base = (first + t * tap - base * kFixedOne) >> 8;
        const int position = (int)(from_base < -kFar ? -kFar : from_base > kFar ? kFar : from_base);
#pragma unroll
        for (int k = 0; k <= TAPS; ++k)
            weights[k] += __saturatef(1.0f - fabsf((float)(position - (k << 24)) * kFixed24));
    }
    const float share = 1.0f / (float)taps;
#pragma unroll
    for (int k = 0; k <= TAPS; ++k) weights[k] *= share;
}

// Lowest source pixel that a sample of one output position reaches. Samples lie at most one pixel apart, so TAPS + 1
// pixels from here on cover all of them.
static __device__ __forceinline__ int first_pixel(fixed32 first, fixed32 tap, int taps) {
    const fixed32 last = first + (taps - 1) * tap;
    return whole(first < last ? first : last);
}

// First source row and weights of one output row. Up to two taps, the usual case, need one 16-byte read.
struct RowFilter {
    float4 head;   // index of the source row, as bits, and three weights
    float4 tail;   // two more weights

    __device__ __forceinline__ int base() const { return (int)__float_as_uint(head.x); }
};

template <int TAPS>
static __device__ __forceinline__ RowFilter row_filter(const Plane& plane, int row) {
    const fixed32 first = plane.first_y + row * plane.step_yy;
    const int base = first_pixel(first, plane.tap_yy, plane.taps_y);
    float given[TAPS + 1], weights[kMaxTaps + 1];
    tap_weights<TAPS>(first, plane.tap_yy, plane.taps_y, base, given);
#pragma unroll
    for (int k = 0; k <= kMaxTaps; ++k) {
        const bool inside = k <= TAPS && base + k >= 0 && base + k < plane.extent_y;
        weights[k] = inside ? given[k <= TAPS ? k : 0] : 0.0f;
    }
    RowFilter filter;
    filter.head = make_float4(__uint_as_float((u32)base), weights[0], weights[1], weights[2]);
    filter.tail = make_float4(weights[3], weights[4], 0.0f, 0.0f);
    return filter;
}

template <int TAPS>
static __device__ __forceinline__ float filter_rows(const RowFilter& filter, const float (&rows)[TAPS + 1]) {
    float value = fmaf(filter.head.z, rows[1], filter.head.y * rows[0]);
    if (TAPS > 1) value = fmaf(filter.head.w, rows[TAPS > 1 ? 2 : 0], value);
    if (TAPS > 2) value = fmaf(filter.tail.x, rows[TAPS > 2 ? 3 : 0], value);
    if (TAPS > 3) value = fmaf(filter.tail.y, rows[TAPS > 3 ? 4 : 0], value);
    return value;
}

// State of one output column of a strip: address and weights of its source pixels, and the last TAPS + 1 source rows,
// filtered along x.
template <int TAPS>
struct Column {
    const u16* pixels;
    float weights[TAPS + 1];
    float rows[TAPS + 1];
    u16 loaded[TAPS + 1];

    __device__ __forceinline__ void place(const u16* source, const Plane& plane, int x) {
        const fixed32 first = plane.first_x + x * plane.step_xx;
        const int wanted = first_pixel(first, plane.tap_xx, plane.taps_x);
        // Clamped to the image; pixels that the samples do not reach have weight 0.
        const int base = max(0, min(wanted, plane.extent_x - 1 - TAPS));
        tap_weights<TAPS>(first, plane.tap_xx, plane.taps_x, base, weights);
        pixels = source + base;
#pragma unroll
        for (int k = 0; k <= TAPS; ++k) rows[k] = 0.0f;
    }

    // Load the pixels of the row that `pixels` points into.
    __device__ __forceinline__ void load() {
#pragma unroll
        for (int k = 0; k <= TAPS; ++k) loaded[k] = __ldg(pixels + k);
    }

    // Filter the loaded pixels along x and append the result to the rows.
    __device__ __forceinline__ void append_row(Ramp ramp, u32 sign) {
        float sum = weights[0] * ramp(loaded[0] ^ sign);
#pragma unroll
        for (int k = 1; k <= TAPS; ++k) sum = fmaf(weights[k], ramp(loaded[k] ^ sign), sum);
#pragma unroll
        for (int k = 0; k < TAPS; ++k) rows[k] = rows[k + 1];
        rows[TAPS] = sum;
    }
};

// Axes that are only scaled and flipped: the filter is separable. A thread iterates over the source rows of its strip,
// filters each along x once, and writes an output row once the last source row that it needs is filtered.
template <class T, int TAPS>
static __device__ __forceinline__ void preprocess_strip(
    const u16* __restrict__ arena, const Plane& plane, Ramp ramp, T* __restrict__ out, int height, int width,
    RowFilter (&strip)[kStripRows]) {
    const int top = blockIdx.y * kStripRows;
    const int rows = min(kStripRows, height - top);
    if (threadIdx.x < rows) strip[threadIdx.x] = row_filter<TAPS>(plane, top + threadIdx.x);
    __syncthreads();

    const int x = (blockIdx.x * kPreprocessThreads + threadIdx.x) * kColumns;
    if (x >= width) return;
    Column<TAPS> columns[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) columns[c].place(arena + plane.offset, plane, x + c);
    const Normalisation normalised(plane);
    const int last_row = plane.extent_y - 1, pitch = plane.stride_y;
    const u32 sign = plane.sign;
    const i64 channel = (i64)height * width;

    // In ascending order of source rows. Rows outside the image have weight 0 in every filter: the nearest row inside is
    // read in their place.
    const int direction = plane.step_yy >= 0 ? 1 : -1;
    int row = direction > 0 ? 0 : rows - 1;
    const int end = direction > 0 ? rows : -1;
    const i64 line = (i64)direction * width;
    T* to = out + plane.output + (i64)(top + row) * width + x;
    RowFilter filter = strip[row];
    int source = filter.base();
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
        columns[c].pixels += (i64)max(0, min(source, last_row)) * pitch;
        columns[c].load();
    }
    while (true) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) columns[c].append_row(ramp, sign);
        // Prefetch the next row while this one is used.
        const bool inside = source >= 0 && source < last_row;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            if (inside) columns[c].pixels += pitch;
            columns[c].load();
        }
        while (filter.base() + TAPS == source) {
            const float a = filter_rows<TAPS>(filter, columns[0].rows), b = filter_rows<TAPS>(filter, columns[1].rows);
            T* place = to;
#pragma unroll
            for (int copy = 0; copy < kMaxCopies; ++copy, place += channel)
                if (copy < normalised.copies) store_pair(place, normalised(a, copy), normalised(b, copy));
            row += direction;
            if (row == end) return;
            to += line;
            filter = strip[row];
        }
        ++source;
    }
}

template <class T>
static __device__ __forceinline__ void preprocess_aligned(
    const u16* __restrict__ arena, const Plane* __restrict__ planes, const Window* __restrict__ windows,
    T* __restrict__ out, int height, int width) {
    __shared__ RowFilter strip[kStripRows];
    const Plane& plane = planes[blockIdx.z];
    const Ramp ramp(windows[plane.window]);
    switch (max(plane.taps_x, plane.taps_y)) {
        case 1: preprocess_strip<T, 1>(arena, plane, ramp, out, height, width, strip); break;
        case 2: preprocess_strip<T, 2>(arena, plane, ramp, out, height, width, strip); break;
        case 3: preprocess_strip<T, 3>(arena, plane, ramp, out, height, width, strip); break;
        default: preprocess_strip<T, 4>(arena, plane, ramp, out, height, width, strip); break;
    }
}

static __device__ __forceinline__ float pixel(const u16* source, const Plane& plane, Ramp ramp, int x, int y) {
    if (x < 0 || y < 0 || x >= plane.extent_x || y >= plane.extent_y) return 0.0f;
    return ramp(__ldg(source + (i64)y * plane.stride_y + (i64)x * plane.stride_x) ^ plane.sign);
}

// Any affine and any number of taps: each output pixel gathers its bilinear samples.
template <class T>
static __device__ __forceinline__ void preprocess_any(
    const u16* __restrict__ arena, const Plane* __restrict__ planes, const Window* __restrict__ windows,
    T* __restrict__ out, int height, int width) {
    const int x = blockIdx.x * kPreprocessThreads + threadIdx.x;
    const int y = blockIdx.y;
    const Plane& plane = planes[blockIdx.z];
    if (x >= width) return;
    const Ramp ramp(windows[plane.window]);
    const u16* source = arena + plane.offset;
    const fixed32 first_x = plane.first_x + x * plane.step_xx + y * plane.step_xy;
    const fixed32 first_y = plane.first_y + x * plane.step_yx + y * plane.step_yy;
    float sum = 0.0f;
    for (int v = 0; v < plane.taps_y; ++v) {
        for (int u = 0; u < plane.taps_x; ++u) {
            const fixed32 at_x = first_x + u * plane.tap_xx + v * plane.tap_xy;
            const fixed32 at_y = first_y + u * plane.tap_yx + v * plane.tap_yy;
            const int left = whole(at_x), top = whole(at_y);
            const float right_share = fraction(at_x), lower_share = fraction(at_y);
            const float a = pixel(source, plane, ramp, left, top), b = pixel(source, plane, ramp, left + 1, top);
            const float c = pixel(source, plane, ramp, left, top + 1), d = pixel(source, plane, ramp, left + 1, top + 1);
            const float upper = fmaf(right_share, b - a, a), lower = fmaf(right_share, d - c, c);
            sum += fmaf(lower_share, lower - upper, upper);
        }
    }
    const float value = sum / (float)(plane.taps_x * plane.taps_y);
    const Normalisation normalised(plane);
    T* const to = out + plane.output + (i64)y * width + x;
#pragma unroll
    for (int copy = 0; copy < kMaxCopies; ++copy)
        if (copy < normalised.copies) store(to + (i64)copy * height * width, normalised(value, copy));
}

KERNEL(kPreprocessThreads) preprocess_f32(
    const u16* arena, const Plane* planes, const Window* windows, float* out, int height, int width) {
    preprocess_aligned(arena, planes, windows, out, height, width);
}

KERNEL(kPreprocessThreads) preprocess_f16(
    const u16* arena, const Plane* planes, const Window* windows, Half* out, int height, int width) {
    preprocess_aligned(arena, planes, windows, out, height, width);
}

KERNEL(kPreprocessThreads) preprocess_affine_f32(
    const u16* arena, const Plane* planes, const Window* windows, float* out, int height, int width) {
    preprocess_any(arena, planes, windows, out, height, width);
}

KERNEL(kPreprocessThreads) preprocess_affine_f16(
    const u16* arena, const Plane* planes, const Window* windows, Half* out, int height, int width) {
    preprocess_any(arena, planes, windows, out, height, width);
}
