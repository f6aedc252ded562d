// For each level the sound slice of lowest ratio within its reach along the canal: see engine/grading/match.py.
#pragma once
#include "types.cuh"

// Grid: levels; block: one warp.
KERNEL(32) maximal_compression(
    const Cord* cords, const float* arcs, int slices, const float* level_arcs, const float* reaches, LevelChoice* choices) {
    const int lane = threadIdx.x;
    const float arc = level_arcs[blockIdx.x], reach = reaches[blockIdx.x];
    const float infinity = __uint_as_float(0x7f800000u);
    LevelChoice best;
    best.slice = slices;
    best.ratio = infinity;
    best.distance_mm = infinity;
    best.flags = 0u;
    for (int slice = lane; slice < slices; slice += 32) {
        const float distance = fabsf(arcs[slice] - arc);
        best.distance_mm = fminf(best.distance_mm, distance);
        if (!(distance <= reach)) continue;
        const Cord cord = cords[slice];
        best.flags |= cord.flags;
        if (cord.flags == 0u && cord.ratio < best.ratio) {
            best.ratio = cord.ratio;
            best.slice = slice;
        }
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) {
        const int slice = __shfl_xor_sync(0xffffffffu, best.slice, distance);
        const float ratio = __shfl_xor_sync(0xffffffffu, best.ratio, distance);
        best.flags |= __shfl_xor_sync(0xffffffffu, best.flags, distance);
        best.distance_mm = fminf(best.distance_mm, __shfl_xor_sync(0xffffffffu, best.distance_mm, distance));
        if (ratio < best.ratio || (ratio == best.ratio && slice < best.slice)) {
            best.ratio = ratio;
            best.slice = slice;
        }
    }
    if (lane != 0) return;
    if (best.slice == slices) {
        best.slice = -1;
        best.ratio = __uint_as_float(0x7fc00000u);
    } else {
        best.flags = 0u;
    }
    choices[blockIdx.x] = best;
}
