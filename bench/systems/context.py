"""What every section of a benchmark run is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.engine.packs.pack import Pack


@dataclass(frozen=True)
class BenchContext:
    """Options and inputs of a benchmark run.

    Attributes:
        pack: the pack under test.
        device: "auto", "cpu" or "gpu".
        precision: "auto" or a precision.
        threads: threads of the CPU backend; None for all cores.
        studies: folder of each study, at least one.
        work: folder for temporary files; the caller removes it.
        seconds: how long the section may take, about; what does not fit is left out and listed as absent.
        say: prints a line of progress.
        official: measure for as long as the rules of the scenarios ask for, whatever `seconds` says.
    """

    pack: Pack
    device: str
    precision: str
    threads: int | None
    studies: tuple[Path, ...]
    work: Path
    seconds: float
    say: Callable[[str], None]
    official: bool = False
