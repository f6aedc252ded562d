"""Accuracy gate: compares the grades of models in another precision with those of the FP32 models.

Both grade the same studies on the CPU through the whole pipeline, the FP32 models by ONNX Runtime. Converted
models are run by ONNX Runtime too, with FP16 tensors rounded to FP16 as on a GPU; a candidate with a backend
of its own is graded by that. A figure that cannot be measured on the given studies counts as failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.model_checks import ModelOutputError, model_error
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS, LoadedStudy, StudyResult
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.export.precision.agreement import (
    StudyPair,
    compared_studies,
    grading_agreement,
    level_pairs,
    level_shifts,
)
from stenosis_trt.export.precision.gate_result import Computation, GateLimits, GateResult, check_limits
from stenosis_trt.export.precision.studies import Studies, StudyCollection, loaded_studies, part_of

if TYPE_CHECKING:
    from stenosis_trt.export.precision.cached_inference import CachedInference

_CONVERTED = Computation()
_MAX_STUDIES_BYTES = 1 << 30


@dataclass(frozen=True)
class GateCandidate:
    """A candidate that its own backend runs.

    Attributes:
        pack: its models.
        open: opens the backend; raises PackError where it cannot run them.
        computed: what it computes with.
    """

    pack: Pack
    open: Callable[[], Backend]
    computed: Computation


class Gate:
    """Compares candidate packs with an FP32 reference on one study set; caches the reference's results.

    The studies stay in memory if all of them fit into 1 GiB. Outputs of models that occur in several
    candidates are cached, so a candidate in which one model changed costs little more than that model.

    Args:
        pack: the FP32 reference.
        studies: called with a description for the progress bar; yields the studies in the same order every
            time.
        validated_on: description of the studies, for the result.
        limits: None for the defaults.
        parts: collections of the studies, for the counts of the result.
    """

    def __init__(
        self,
        pack: Pack,
        studies: Callable[[str], Iterable[LoadedStudy]],
        validated_on: str,
        limits: GateLimits | None = None,
        parts: Sequence[StudyCollection] = (),
    ) -> None:
        self._pack, self._studies, self._parts = pack, studies, parts
        self._part: dict[int, StudyCollection | None] = {}
        self._validated_on, self._limits = validated_on, limits or GateLimits()
        self._studies_in_memory: list[LoadedStudy] | None = None
        self._count: int | None = None
        self._expected: dict[int, StudyResult | None] = {}
        self._failed_at: dict[int, int] = {}
        self._models: CachedInference | None = None

    @classmethod
    def on(cls, pack: Pack, studies: Studies, limits: GateLimits | None = None) -> Gate:
        """Gate that reads its studies from folders."""
        return cls(pack, lambda what: loaded_studies(studies, what), studies.source, limits, studies.parts)

    def grade_reference(self, what: str) -> None:
        """Read all studies and grade them with the reference. `what` is the text of the progress bar."""
        with ExitStack() as stack:
            expected = self._reference_grader(stack)
            for place, study in enumerate(self._replay(what)):
                expected(place, study)

    def measure(
        self, candidates: Mapping[str, Pack | GateCandidate], what: str = ""
    ) -> dict[str, GateResult]:
        """Grade all studies with each candidate and compare with the reference, on the CPU.

        Args:
            candidates: by the name of their precision: packs, which differ from the reference in their models
                alone, or packs with a backend.
            what: text of the progress bar; "" shows none.

        Raises:
            PackError: a model cannot be run or returns invalid values.
        """
        pairs: dict[str, list[StudyPair]] = {name: [] for name in candidates}
        with ExitStack() as stack:
            graded = {name: self._grader(candidate, stack) for name, candidate in candidates.items()}
            expected = self._reference_grader(stack)
            for place, study in enumerate(self._replay(what)):
                for name, found in graded.items():
                    pairs[name].append(StudyPair(expected(place, study), found(study)))
        return {
            name: self._result(
                name, dict(enumerate(pairs[name])), self._validated_on, _computation(candidate)
            )
            for name, candidate in candidates.items()
        }

    def measure_until_failure(self, precision: str, candidate: Pack, what: str = "") -> GateResult:
        """Compare one candidate and stop as soon as it cannot pass any more. Needs one complete pass before.

        Studies on which earlier candidates failed come first if all studies are in memory. If it stopped
        early, `validated_on` of the result says so, and its figures cover the graded studies alone.

        Raises:
            PackError: see `measure`.
        """
        pairs: dict[int, StudyPair] = {}
        left_off = False
        with ExitStack() as stack:
            found, expected = self._grader(candidate, stack), self._reference_grader(stack)
            studies: Iterable[tuple[int, LoadedStudy]] = enumerate(self._replay(what))
            if self._studies_in_memory is not None:
                studies = sorted(studies, key=lambda item: -self._failed_at.get(item[0], 0))
            for place, study in studies:
                pairs[place] = StudyPair(expected(place, study), found(study))
                left_off = self._count is not None and self._cannot_pass(pairs.values(), self._count)
                if left_off:
                    self._failed_at[place] = max(self._failed_at.values(), default=0) + 1
                    break
        on = self._validated_on
        if left_off and len(pairs) != self._count:
            on = f"{len(pairs)} of {self._count} studies ({on}), then left off"
        return self._result(precision, pairs, on)

    def _grader(
        self, candidate: Pack | GateCandidate, stack: ExitStack
    ) -> Callable[[LoadedStudy], StudyResult | None]:
        if isinstance(candidate, GateCandidate):
            pack, backend = candidate.pack, candidate.open()
        else:
            pack, backend = candidate, self._cached_models().backend(candidate)
        stack.enter_context(closing(backend))
        return lambda study: _grade(study, pack, backend)

    def _cached_models(self) -> CachedInference:
        if self._models is None:
            # Needs the package onnx, which candidates with a backend of their own do without.
            from stenosis_trt.export.precision.cached_inference import CachedInference

            self._models = CachedInference()
        return self._models

    def _reference_grader(self, stack: ExitStack) -> Callable[[int, LoadedStudy], StudyResult | None]:
        """Function from (index, study) to the reference's result; opens the FP32 models on first use."""
        opened: list[CpuBackend] = []

        def expected(place: int, study: LoadedStudy) -> StudyResult | None:
            if place not in self._expected:
                if not opened:
                    opened.append(stack.enter_context(closing(CpuBackend(self._pack))))
                self._expected[place] = _grade(study, self._pack, opened[0])
            return self._expected[place]

        return expected

    def _result(
        self,
        precision: str,
        pairs: Mapping[int, StudyPair],
        validated_on: str,
        computed: Computation = _CONVERTED,
    ) -> GateResult:
        places = sorted(pairs)
        figures = grading_agreement([pairs[place] for place in places])
        compared = tuple(
            compared_studies(
                part.source,
                part.subjects,
                [pairs[place] for place in places if self._part.get(place) is part],
            )
            for part in self._parts
        )
        checks = check_limits(figures, self._limits)
        return GateResult(precision, validated_on, figures, checks, computed, compared)

    def _cannot_pass(self, pairs: Iterable[StudyPair], studies: int) -> bool:
        """True if a limit is exceeded whatever the rest of the `studies` (total number) show."""
        levels = [both for pair in pairs for both in level_pairs(pair)]
        if max(level_shifts(levels), default=0.0) > self._limits.maximum_level_shift_mm:
            return True
        changed = sum((a.grade if a else None) != (b.grade if b else None) for a, b in levels)
        return changed > (1.0 - self._limits.minimum_identical) * len(LEVELS) * studies

    def _replay(self, what: str) -> Iterator[LoadedStudy]:
        if self._studies_in_memory is not None:
            with show_progress(what, "studies") if what else nullcontext() as progress:
                for done, study in enumerate(self._studies_in_memory, start=1):
                    yield study
                    if progress is not None:
                        progress.advance(done, len(self._studies_in_memory))
            return
        kept: list[LoadedStudy] = []
        size = count = 0
        for study in self._studies(what):
            self._part[count] = part_of(self._parts, study)
            count += 1
            size += sum(item.stored.nbytes for item in (*study.sagittal, *study.axial))
            if size <= _MAX_STUDIES_BYTES:
                kept.append(study)
            yield study
        self._count = count
        if size <= _MAX_STUDIES_BYTES:
            self._studies_in_memory = kept


def _computation(candidate: Pack | GateCandidate) -> Computation:
    return candidate.computed if isinstance(candidate, GateCandidate) else _CONVERTED


def _grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult | None:
    try:
        return grade_study(study, pack, backend)
    except CannotGrade:
        return None
    except ModelOutputError as error:
        # Invalid values on any study disqualify the candidate.
        raise model_error(error.model, error.fault) from error
