"""Studies of several subjects in turn: what `phantom --anatomy` writes and the recipe learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from stenosis_trt.bench.phantom.study import PhantomStudy
from stenosis_trt.bench.semisynthetic.straight import StraightenedSubject, load_straightened
from stenosis_trt.bench.semisynthetic.study import sample_semisynthetic
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.kernels.binaries import cache_folder


def _default_folder() -> Path:
    return cache_folder() / "straight"


@dataclass(frozen=True)
class SemisyntheticSource:
    """Semi-synthetic studies made from subjects in turn.

    Attributes:
        subjects: names in `SUBJECTS`.
        volumes: folder with one folder a subject.
        straightened_folder: where straight volumes are kept; made where absent.

    Raises:
        ValueError: a name is not known, or there is none.
        OSError: a subject's volume is not there.
    """

    subjects: tuple[str, ...]
    volumes: Path
    straightened_folder: Path = field(default_factory=_default_folder)

    def __post_init__(self) -> None:
        unknown = [name for name in self.subjects if name not in SUBJECTS]
        if unknown or not self.subjects:
            known = ", ".join(SUBJECTS)
            raise ValueError(f"Subject {', '.join(unknown) or '(none)'} is not known. Give one of {known}.")
        for name in self.subjects:
            SUBJECTS[name].path(self.volumes).stat()

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy:
        """Study `index` of set `seed`; it depends on the subject, seed, index and grade alone."""
        name = self.subjects[index % len(self.subjects)]
        return sample_semisynthetic(
            _straight(name, self.volumes, self.straightened_folder), seed, index, grade
        )


@lru_cache(maxsize=len(SUBJECTS))
def _straight(name: str, volumes: Path, kept: Path) -> StraightenedSubject:
    return load_straightened(SUBJECTS[name], volumes, kept)
