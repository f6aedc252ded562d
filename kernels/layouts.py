"""NumPy dtypes of the C structs in `cuda/types.cuh`. A test compiles each offset and size against them."""

from __future__ import annotations

import numpy as np

MAX_COPIES = 4
"""Largest number of output channels that one plane is written to."""

REGION = np.dtype(
    [
        ("offset", np.int64),
        ("rows", np.int32),
        ("columns", np.int32),
        ("pitch", np.int32),
        ("set", np.int32),
        ("sign", np.uint32),
        ("unused", np.int32),
    ]
)
WINDOW = np.dtype([("low", np.float32), ("high", np.float32)])
SELECTION = np.dtype(
    [
        ("counts", np.uint32, (2, 256)),
        ("rank", np.uint32, (2,)),
        ("bin", np.uint32, (2,)),
        ("blocks_done", np.uint32),
        ("unused", np.uint32, (3,)),
    ]
)
RANK_REQUEST = np.dtype([("rank", np.uint32, (2,)), ("blocks", np.uint32), ("unused", np.uint32)])
PLANE = np.dtype(
    [
        ("offset", np.int64),
        ("output", np.int64),
        ("first_x", np.int64),
        ("first_y", np.int64),
        ("step_xx", np.int64),
        ("step_yx", np.int64),
        ("step_xy", np.int64),
        ("step_yy", np.int64),
        ("tap_xx", np.int64),
        ("tap_yx", np.int64),
        ("tap_xy", np.int64),
        ("tap_yy", np.int64),
        ("extent_x", np.int32),
        ("extent_y", np.int32),
        ("stride_x", np.int32),
        ("stride_y", np.int32),
        ("taps_x", np.int32),
        ("taps_y", np.int32),
        ("window", np.int32),
        ("sign", np.uint32),
        ("copies", np.int32),
        ("mean", np.float32, (MAX_COPIES,)),
        ("scale", np.float32, (MAX_COPIES,)),
        ("unused", np.int32),
    ]
)
FRAME = np.dtype([("source", np.float32, (3, 2)), ("patient", np.float32, (3, 3)), ("unused", np.float32)])
KEYPOINT = np.dtype(
    [
        ("x", np.float32),
        ("y", np.float32),
        ("confidence", np.float32),
        ("column", np.float32),
        ("row", np.float32),
        ("patient", np.float32, (3,)),
    ]
)
DIRECTION = np.dtype([("d", np.float32, (3,))])
CORD = np.dtype(
    [
        ("ap_mm", np.float32),
        ("transverse_mm", np.float32),
        ("ratio", np.float32),
        ("angle_degrees", np.float32),
        ("crossing", np.uint32),
    ]
)

STRUCTS = {
    "Region": REGION,
    "Window": WINDOW,
    "Selection": SELECTION,
    "RankRequest": RANK_REQUEST,
    "Plane": PLANE,
    "Frame": FRAME,
    "Keypoint": KEYPOINT,
    "Direction": DIRECTION,
    "Cord": CORD,
}
"""Name of the C++ struct → dtype."""
