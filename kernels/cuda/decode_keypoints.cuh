// Heatmaps → subpixel peaks → source pixels → patient coordinates in mm; for the cord also its diameters.
//
// Subpixel position: vertex of the parabola through the peak and its two neighbours along each axis.
// `stenosis_trt.bench.accuracy.subpixel` compares it with other methods.
//
// Roofline: every heatmap value is read once from memory, and for each further peak once from a cache; 32 bytes are
// written per peak.
#pragma once
#include "types.cuh"

// One warp per heatmap, one block per image.
constexpr int kMaxMaps = 12;
constexpr int kPeaks = 4;
constexpr float kLowestPeak = 1.0f / 64.0f;
constexpr int kCordPoints = 4;

constexpr float kDegrees = 57.29577951308232f;

// Largest accepted deviation below 0 of a heatmap value: reference.HEATMAP_TOLERANCE.
constexpr float kHeatmapTolerance = 1e-3f;
constexpr float kLargestFloat = 3.4028235e38f;

static __device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }

struct Peak {
    float value;
    int index;

    // Of equal values the first in the map is the peak. An invalid value, NaN or below 0, makes the peak NaN, which no
    // later value replaces because comparisons with NaN are false.
    __device__ __forceinline__ void offer(float other, int at) {
        const bool valid = other >= -kHeatmapTolerance;
        if (!valid || other > value || (other == value && at < index)) {
            value = valid ? other : not_a_number();
            index = at;
        }
    }
};

static __device__ __forceinline__ void offer_vector(Peak& peak, const float* values, int at) {
    const float4 four = __ldg((const float4*)(values + at));
    peak.offer(four.x, at);
    peak.offer(four.y, at + 1);
    peak.offer(four.z, at + 2);
    peak.offer(four.w, at + 3);
}

static __device__ __forceinline__ void offer_pair(Peak& peak, u32 pair, int at) {
    peak.offer(value_of(Half{(u16)(pair & 0xffffu)}), at);
    peak.offer(value_of(Half{(u16)(pair >> 16)}), at + 1);
}

static __device__ __forceinline__ void offer_vector(Peak& peak, const Half* values, int at) {
    const uint4 eight = __ldg((const uint4*)(values + at));
    offer_pair(peak, eight.x, at);
    offer_pair(peak, eight.y, at + 2);
    offer_pair(peak, eight.z, at + 4);
    offer_pair(peak, eight.w, at + 6);
}

// The highest of the peaks of all lanes; every lane ends with it.
static __device__ __forceinline__ void join_lanes(Peak& peak) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) {
        const float value = __shfl_xor_sync(0xffffffffu, peak.value, distance);
        const int index = __shfl_xor_sync(0xffffffffu, peak.index, distance);
        peak.offer(value, index);
    }
}

// Find the highest peak of one map with one warp. A map with an invalid value has a peak of NaN at its first pixel, so
// that the host rejects it instead of taking it for a map without a peak.
template <class T>
static __device__ __forceinline__ Peak find_peak(const T* __restrict__ map, int count) {
    constexpr int kVector = 16 / (int)sizeof(T);
    const int lane = threadIdx.x & 31;
    Peak peak;
    peak.value = -kHeatmapTolerance;
    peak.index = count;
    int done = 0;
    if (((unsigned long long)map & 15u) == 0u) {
        done = count / kVector * kVector;
        for (int at = lane * kVector; at < done; at += 32 * kVector) offer_vector(peak, map, at);
    }
    for (int at = done + lane; at < count; at += 32) peak.offer(value_of(map[at]), at);
    join_lanes(peak);
    if (!(peak.value <= kLargestFloat)) {
        peak.value = not_a_number();
        peak.index = 0;
    }
    return peak;
}

// A local maximum is higher than its eight neighbours; of equal values the first in the map counts as the higher one.
template <class T>
static __device__ __forceinline__ bool is_local_maximum(
    const T* __restrict__ map, float value, int at, int height, int width) {
    const int row = at / width, column = at % width;
    // Not unrolled: few pixels get here, and eight reads at once are not worth the registers.
#pragma unroll 1
    for (int place = 0; place < 9; ++place) {
        // Beyond the border the nearest pixel of the map is compared: a neighbour, or the pixel itself.
        const int y = min(max(row + place / 3 - 1, 0), height - 1), x = min(max(column + place % 3 - 1, 0), width - 1);
        const int beside = y * width + x;
        const float other = value_of(map[beside]);
        if (other > value || (other == value && beside < at)) return false;
    }
    return true;
}

static __device__ __forceinline__ float highest_of_vector(const float* values) {
    const float4 four = __ldg((const float4*)values);
    return fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w));
}

static __device__ __forceinline__ float highest_of_pair(u32 pair) {
    return fmaxf(value_of(Half{(u16)(pair & 0xffffu)}), value_of(Half{(u16)(pair >> 16)}));
}

static __device__ __forceinline__ float highest_of_vector(const Half* values) {
    const uint4 eight = __ldg((const uint4*)values);
    return fmaxf(
        fmaxf(highest_of_pair(eight.x), highest_of_pair(eight.y)),
        fmaxf(highest_of_pair(eight.z), highest_of_pair(eight.w)));
}

// Find the highest local maximum above kLowestPeak that follows `last` in the order of peaks, with one warp. If there is
// none, which holds after NaN too, its value is 0, at the first pixel.
template <class T>
static __device__ __forceinline__ Peak next_peak(const T* __restrict__ map, const Peak& last, int height, int width) {
    constexpr int kVector = 16 / (int)sizeof(T);
    const int count = height * width;
    const bool aligned = ((unsigned long long)map & 15u) == 0u;
    Peak peak;
    peak.value = kLowestPeak;
    peak.index = count;
#pragma unroll 1
    for (int first = (threadIdx.x & 31) * kVector; first < count; first += 32 * kVector) {
        const int end = min(first + kVector, count);
        // Most of a map is too low.
        if (aligned && end == first + kVector && highest_of_vector(map + first) <= peak.value) continue;
#pragma unroll 1
        for (int at = first; at < end; ++at) {
            const float value = value_of(map[at]);
            const bool follows = value < last.value || (value == last.value && at > last.index);
            if (follows && value > peak.value && is_local_maximum(map, value, at, height, width)) {
                peak.value = value;
                peak.index = at;
            }
        }
    }
    join_lanes(peak);
    if (peak.index == count) {
        peak.value = 0.0f;
        peak.index = 0;
    }
    return peak;
}

// NaN counts as 0 here: the peak of its map reports it.
template <class T>
static __device__ __forceinline__ float map_value(const T* map, int at) {
    const float value = value_of(map[at]);
    return value == value ? value : 0.0f;
}

// Subpixel shift of a peak along one axis, in pixels, −0.5 … 0.5; 0 at the border. Neighbours lie `stride` apart.
template <class T>
static __device__ __forceinline__ float shift(const T* map, float peak, int at, int stride, int place, int size) {
    if (place == 0 || place == size - 1) return 0.0f;
    const float before = map_value(map, at - stride), after = map_value(map, at + stride);
    const float curvature = (peak - before) + (peak - after);
    if (!(curvature > 0.0f)) return 0.0f;
    return fminf(fmaxf(0.5f * (after - before) / curvature, -0.5f), 0.5f);
}

// Keypoint of a peak.
template <class T>
static __device__ __forceinline__ Keypoint locate_peak(
    const T* __restrict__ map, const Peak& peak, const Frame& frame, int height, int width) {
    const int column = peak.index % width, row = peak.index / width;
    Keypoint point;
    point.x = (float)column + shift(map, peak.value, peak.index, 1, column, width);
    point.y = (float)row + shift(map, peak.value, peak.index, width, row, height);
    point.confidence = peak.value;
    point.column = fmaf(point.x, frame.source[0][0], fmaf(point.y, frame.source[1][0], frame.source[2][0]));
    point.row = fmaf(point.x, frame.source[0][1], fmaf(point.y, frame.source[1][1], frame.source[2][1]));
#pragma unroll
    for (int axis = 0; axis < 3; ++axis)
        point.patient[axis] = fmaf(point.x, frame.patient[0][axis], fmaf(point.y, frame.patient[1][axis], frame.patient[2][axis]));
    return point;
}

struct Segment {
    float d[3];

    __device__ __forceinline__ Segment(const Keypoint& from, const Keypoint& to) {
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) d[axis] = to.patient[axis] - from.patient[axis];
    }

    // Project on the plane orthogonal to a unit vector.
    __device__ __forceinline__ void project_across(const Direction& direction) {
        const float along = fmaf(d[0], direction.d[0], fmaf(d[1], direction.d[1], d[2] * direction.d[2]));
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) d[axis] = fmaf(-along, direction.d[axis], d[axis]);
    }
};

static __device__ __forceinline__ float dot(const Segment& a, const Segment& b) {
    return fmaf(a.d[0], b.d[0], fmaf(a.d[1], b.d[1], a.d[2] * b.d[2]));
}

// Length of the cross product: unlike 1 − cos² it stays precise for nearly parallel segments.
static __device__ __forceinline__ float cross_length(const Segment& a, const Segment& b) {
    const float x = fmaf(a.d[1], b.d[2], -a.d[2] * b.d[1]);
    const float y = fmaf(a.d[2], b.d[0], -a.d[0] * b.d[2]);
    const float z = fmaf(a.d[0], b.d[1], -a.d[1] * b.d[0]);
    return sqrtf(fmaf(x, x, fmaf(y, y, z * z)));
}

// Diameters of a cord from its anterior, posterior, left and right point, projected on the plane across the cord. The
// ratio AP ÷ transverse is that of the Spinal Cord Toolbox's `sct_detect_compression`, the projection its angle
// correction.
static __device__ __forceinline__ Cord measure_cord(const Keypoint* points, const Direction& direction) {
    Segment ap(points[0], points[1]), transverse(points[2], points[3]), start(points[0], points[2]);
    ap.project_across(direction);
    transverse.project_across(direction);
    start.project_across(direction);
    const float aa = dot(ap, ap), tt = dot(transverse, transverse), at = dot(ap, transverse);
    const float cross = cross_length(ap, transverse);
    Cord cord;
    cord.ap_mm = sqrtf(aa);
    cord.transverse_mm = sqrtf(tt);
    cord.ratio = tt > 0.0f ? cord.ap_mm / cord.transverse_mm : not_a_number();
    cord.angle_degrees = aa > 0.0f && tt > 0.0f ? atan2f(cross, fabsf(at)) * kDegrees : 0.0f;
    // Least-squares solution of anterior + a · ap = left + b · transverse: the diameters cross if a and b lie in 0 … 1.
    const float sa = dot(start, ap), st = dot(start, transverse), determinant = cross * cross;
    const float along_ap = sa * tt - st * at, along_transverse = sa * at - st * aa;
    const bool crossing = determinant > 0.0f && along_ap >= 0.0f && along_ap <= determinant &&
                          along_transverse >= 0.0f && along_transverse <= determinant;
    cord.crossing = crossing ? 1u : 0u;
    return cord;
}

// Highest value in the 3 × 3 neighbourhood of a pixel, clipped to the map.
template <class T>
static __device__ __forceinline__ float highest_around(const T* __restrict__ map, int place, int height, int width) {
    const int row = place / width, column = place % width;
    float highest = 0.0f;
    // Not unrolled: nine reads per lane are not worth the registers.
#pragma unroll 1
    for (int y = max(row - 1, 0); y <= min(row + 1, height - 1); ++y)
#pragma unroll 1
        for (int x = max(column - 1, 0); x <= min(column + 1, width - 1); ++x)
            highest = fmaxf(highest, map_value(map, y * width + x));
    return highest;
}

// Grid: images; block: 32 threads per map. points[image][map] are the kPeaks highest peaks, in descending order;
// support[image][k][j] is the height of map k at the highest peak of map j.
template <class T>
static __device__ __forceinline__ void decode_image(
    const T* __restrict__ heatmaps, const Frame* __restrict__ frames, Keypoint* __restrict__ points,
    float* __restrict__ support, int height, int width) {
    __shared__ int places[kMaxMaps];
    const int map = threadIdx.x >> 5, lane = threadIdx.x & 31, maps = blockDim.x >> 5;
    const i64 number = (i64)blockIdx.x * maps + map;
    const T* values = heatmaps + number * height * width;
    Peak peak = find_peak(values, height * width);
    if (lane == 0) places[map] = peak.index;
    __syncthreads();
    if (lane < maps) support[number * maps + lane] = highest_around(values, places[lane], height, width);
#pragma unroll 1
    for (int order = 0; order < kPeaks; ++order) {
        if (order > 0) peak = next_peak(values, peak, height, width);
        if (lane == 0)
            points[number * kPeaks + order] = locate_peak(values, peak, frames[blockIdx.x], height, width);
    }
}

// Keypoints and the geometry of the four points in one launch. Grid: images; block: four warps.
template <class T>
static __device__ __forceinline__ void decode_cord(
    const T* __restrict__ heatmaps, const Frame* __restrict__ frames, const Direction* __restrict__ directions,
    Keypoint* __restrict__ points, Cord* __restrict__ cords, int height, int width) {
    __shared__ Keypoint corners[kCordPoints];
    const int map = threadIdx.x >> 5;
    const i64 number = (i64)blockIdx.x * kCordPoints + map;
    const T* values = heatmaps + number * height * width;
    const Peak peak = find_peak(values, height * width);
    const Keypoint point = locate_peak(values, peak, frames[blockIdx.x], height, width);
    if ((threadIdx.x & 31) == 0) {
        points[number] = point;
        corners[map] = point;
    }
    __syncthreads();
    if (threadIdx.x == 0) cords[blockIdx.x] = measure_cord(corners, directions[blockIdx.x]);
}

KERNEL(32 * kMaxMaps) decode_peaks_f32(
    const float* heatmaps, const Frame* frames, Keypoint* points, float* support, int height, int width) {
    decode_image(heatmaps, frames, points, support, height, width);
}

KERNEL(32 * kMaxMaps) decode_peaks_f16(
    const Half* heatmaps, const Frame* frames, Keypoint* points, float* support, int height, int width) {
    decode_image(heatmaps, frames, points, support, height, width);
}

KERNEL(32 * kCordPoints) cord_geometry_f32(
    const float* heatmaps, const Frame* frames, const Direction* directions, Keypoint* points, Cord* cords, int height,
    int width) {
    decode_cord(heatmaps, frames, directions, points, cords, height, width);
}

KERNEL(32 * kCordPoints) cord_geometry_f16(
    const Half* heatmaps, const Frame* frames, const Direction* directions, Keypoint* points, Cord* cords, int height,
    int width) {
    decode_cord(heatmaps, frames, directions, points, cords, height, width);
}
