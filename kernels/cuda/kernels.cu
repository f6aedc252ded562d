// The single translation unit of the device code.
#include "types.cuh"
#include "order_statistics.cuh"
#include "preprocess.cuh"
#include "decode_keypoints.cuh"
#include "input_contrast.cuh"
