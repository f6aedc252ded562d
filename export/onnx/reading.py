"""Reading of an ONNX file together with the files in which it keeps its weights (external data).

`onnx.load` refuses files of weights that are links, symbolic or hard. Package managers install files as hard
links, and caches of model hubs hold symbolic ones, so that they are read here.
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper

from stenosis_trt.export.onnx.checks import OnnxError


def read_model(path: Path) -> onnx.ModelProto:
    """Read a model; external data become part of it. Nothing else of the model is checked.

    Args:
        path: the ONNX file. It names files of weights in its own folder or below; links are followed.

    Raises:
        OnnxError: the file or one of its weights is missing, incomplete or outside of the folder.
        OSError, DecodeError: a file cannot be read.
    """
    if not path.is_file():
        raise OnnxError(f"{path} is not there.", "Give the model, its data beside it.")
    model = onnx.load(path, load_external_data=False)
    tensors = [
        tensor
        for tensor in external_data_helper._get_all_tensors(model)
        if external_data_helper.uses_external_data(tensor)
    ]
    named = sorted({_location(tensor) for tensor in tensors})
    _check_files(path, named)
    files = {name: (path.parent / name).read_bytes() for name in named}
    for tensor in tensors:
        name = _location(tensor)
        tensor.raw_data = _values(path, tensor, name, files[name])
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    return model


def _location(tensor: TensorProto) -> str:
    return external_data_helper.ExternalDataInfo(tensor).location


def _check_files(path: Path, named: list[str]) -> None:
    """Check that the model's folder has all files with weights."""
    for name in named:
        if not name or os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir:
            raise OnnxError(
                f"{path} keeps weights in {name or 'a file without a name'}, not in a file of its folder.",
                "Save it again with its weights beside it.",
            )
    missing = [name for name in named if not (path.parent / name).is_file()]
    if missing:
        raise OnnxError(
            f"{path} keeps weights in {', '.join(missing[:3])}, which is not there.",
            f"Put it beside the model, in {path.parent}, under that name.",
        )


def _values(path: Path, tensor: TensorProto, name: str, data: bytes) -> bytes:
    """Return the bytes of a tensor's values."""
    place = external_data_helper.ExternalDataInfo(tensor)
    start = place.offset or 0
    end = len(data) if place.length is None else start + place.length
    if not 0 <= start <= end <= len(data):
        raise OnnxError(
            f"{path} keeps weights up to byte {max(start, end)} of {name}, which has {len(data)}.",
            "Copy both files again.",
        )
    return data[start:end]
