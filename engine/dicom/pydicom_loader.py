"""Import of pydicom when a file needs it: a compressed one, or one with an unusual character set.

The import takes longer than reading the headers of a study, and most files need nothing of it. `engine/dicom`
imports pydicom in functions only, after `load_pydicom`.
"""

from __future__ import annotations

import importlib
from functools import cache

from stenosis_trt.engine.support.memory_limit import exempt_from_limit


@cache
def load_pydicom() -> None:
    """Import pydicom and its decoders. Their memory is no fault of the file that needs them first."""
    with exempt_from_limit():
        importlib.import_module("pydicom.pixels.decoders.base")
