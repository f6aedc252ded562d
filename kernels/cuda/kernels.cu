// The one translation unit of all device code.
#include "types.cuh"
#include "order_statistics.cuh"
#include "preprocess.cuh"
#include "decode_keypoints.cuh"
#include "maximal_compression.cuh"
#include "input_contrast.cuh"
