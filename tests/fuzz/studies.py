"""Studies put together from headers, and the choice of their series.

Any headers that can be read are put together, and every file is in a study or has a row of its own.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from dicom_factory import AXIAL

from fuzz.harness import Target, main
from fuzz.headers import small, written
from fuzz.mutation import mutated_bundle, mutated_dicom, packed, unpacked
from stenosis_trt.engine.dicom.copies import compare_files
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import FileHeader, HeaderReader, read_header
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.series import build_studies
from stenosis_trt.engine.selection.select import select_series

_LIMITS = ReadLimits()
_KEY = b"key of the digests"


def seeds() -> list[bytes]:
    sagittal = {f"s{number}": written(small(number)) for number in range(9)}
    axial = {
        f"a{number}": written(
            small(
                number,
                SeriesInstanceUID="1.2.9",
                SOPInstanceUID=f"1.2.9.{number}",
                SeriesDescription="t2_tse_tra",
                ImageOrientationPatient=AXIAL,
                ImagePositionPatient=[-100.0, -100.0, 3.5 * number],
            )
        )
        for number in range(9)
    }
    return [packed(sagittal), packed({**sagittal, **axial})]


def check(data: bytes, folder: Path) -> None:
    headers: list[FileHeader] = []
    reader = HeaderReader(_LIMITS, _KEY)
    for number, content in enumerate((unpacked(data) or {}).values()):
        path = folder / f"{number}.dcm"
        path.write_bytes(content)
        try:
            headers.append(reader.read(path))
        except DicomError as error:
            with pytest.raises(DicomError, match=re.escape(error.reason)):
                read_header(path, _LIMITS, _KEY)
            continue
        assert headers[-1] == read_header(path, _LIMITS, _KEY), "what was kept of a series changed a header"
    studies, problems = build_studies(
        headers, lambda pairs: [compare_files(one.path, other.path, 0, _LIMITS) for one, other in pairs]
    )
    told = {problem.path for problem in problems}
    for study in studies:
        select_series(study)
        told |= {str(frame.path) for series in study.series for frame in series.frames}
    # Of equal copies one is enough.
    contents = {Path(path).read_bytes() for path in told}
    assert all(header.path.read_bytes() in contents for header in headers), "a file has no row"


def mutate(rng: random.Random, data: bytes) -> bytes:
    for _ in range(rng.randint(1, 4)):
        data = mutated_bundle(rng, data, mutated_dicom)
    return data


TARGET = Target("studies", (), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
