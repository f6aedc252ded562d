"""The sample library: the studies of a load run, and the system under test for each cut of the product."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.bench.load.running import Serve
from stenosis_trt.bench.record.record import Absence
from stenosis_trt.bench.systems.inputs import StudyInputs
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.api import UngradedStudy
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import LoadedStudy, StudyHeader

MAX_STUDIES = 12
"""Studies in the library, which are all held in memory."""


@dataclass(frozen=True)
class StudySample:
    """One study of the library, in the forms that the cuts start from.

    Attributes:
        folder: its files.
        header: its header.
        study: its pixels.
        inputs: the inputs of its networks.
    """

    folder: Path
    header: StudyHeader
    study: LoadedStudy
    inputs: StudyInputs

    @property
    def images(self) -> int:
        """Number of slices."""
        return len(self.study.sagittal) + len(self.study.axial)


class Library:
    """The studies of a load run, loaded; opening it warms each cut up on each study.

    Args:
        product: the system under test.
        folders: folder of each study.

    Attributes:
        samples: the studies that can be graded.
        absences: the studies that cannot be, and why.

    Raises:
        InputError: none can be graded.
    """

    def __init__(self, product: Product, folders: Sequence[Path]) -> None:
        self._product = product
        self.absences: list[Absence] = []
        samples = []
        for number, folder in enumerate(folders[:MAX_STUDIES], start=1):
            opened = self._open(folder)
            if isinstance(opened, InputError):
                self.absences.append(Absence(f"load.study_{number}", opened.reason))
            else:
                samples.append(opened)
        if not samples:
            raise InputError(
                f"None of the {len(self.absences)} studies can be graded: "
                f"{self.absences[0].reason.removeprefix('cannot grade: ')}",
                "Give studies that can be graded.",
            )
        self.samples = tuple(samples)

    @property
    def middle(self) -> StudySample:
        """The study with the median number of network inputs."""
        by_images = sorted(self.samples, key=lambda sample: sample.inputs.images)
        return by_images[len(by_images) // 2]

    def models(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Serve a query of studies by the networks alone."""
        for position, index in enumerate(indices):
            self._product.models(self.samples[index].inputs)
            yield (position,)

    def device(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Serve a query of studies whose pixels are in memory."""
        for position, index in enumerate(indices):
            self._product.device(self.samples[index].study)
            yield (position,)

    def whole(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Serve a query of studies on disk, one after the other."""
        for position, index in enumerate(indices):
            self._product.whole(self.samples[index].folder)
            yield (position,)

    def archive(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Serve a query of studies on disk as an archive: the next study is read while one is computed.

        A study that is asked for several times is graded as often: the studies of the query are taken in
        passes in which each appears once.
        """
        waiting: dict[int, deque[int]] = {}
        for position, index in enumerate(indices):
            waiting.setdefault(index, deque()).append(position)
        headers = {sample.header.study_uid: sample.header for sample in self.samples}
        numbers = {sample.header.study_uid: number for number, sample in enumerate(self.samples)}
        while waiting:
            folders = [self.samples[index].folder for index in sorted(waiting)]
            for result in self._product.grader.stream(folders):
                if isinstance(result, UngradedStudy):
                    raise InputError(result.reason, result.advice)
                self._product.report(result, headers[result.study_uid])
                yield (waiting[numbers[result.study_uid]].popleft(),)
            waiting = {index: positions for index, positions in waiting.items() if positions}

    def regions(self) -> Serve:
        """Return what serves single regions at a disc level, by the network that grades them alone."""
        batch = self.middle.inputs.batches["grader"]
        single = [StudyInputs({"grader": batch[k : k + 1]}) for k in range(len(batch))]

        def serve(indices: Sequence[int]) -> Iterator[Sequence[int]]:
            for position, index in enumerate(indices):
                self._product.models(single[index])
                yield (position,)

        for index in range(len(single)):
            list(serve([index]))
        return serve

    def study_of_regions(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Serve a query of all network inputs of the median study, by the networks alone."""
        self._check_complete(indices, self.middle.inputs.images)
        self._product.models(self.middle.inputs)
        yield range(len(indices))

    def study_of_images(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Serve a query of all slices of the median study, whose pixels are in memory."""
        self._check_complete(indices, self.middle.images)
        self._product.device(self.middle.study)
        yield range(len(indices))

    def _open(self, folder: Path) -> StudySample | InputError:
        """Read a study and run each cut on it; return why it cannot be graded."""
        product = self._product
        try:
            result, header = product.grader.grade_with_header(folder)
            product.report(result, header)
            study = product.load(folder)
            inputs = product.inputs(study)
        except InputError as error:
            return error
        product.models(inputs)
        return StudySample(folder, header, study, inputs)

    @staticmethod
    def _check_complete(indices: Sequence[int], count: int) -> None:
        if sorted(indices) != list(range(count)):
            raise RuntimeError(f"A query has {len(indices)} samples that are not the {count} of one study.")
