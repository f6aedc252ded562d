"""Work of a process of its own, whose peak memory is measured.

    python -m stenosis_trt.bench.scaling.child '{"work": "open", …}'

The process writes a line "ready" once models are open. For each line that it reads it works once, and writes
one line of JSON with its seconds and peak memory. See `ChildRequest`.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stenosis_trt.engine.support.hardware import usable_cores

Work = Literal["open", "batch", "size", "stream", "scan"]

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class ChildRequest:
    """What the process does.

    Attributes:
        work: "open" the product only; run the `model` on a "batch" of `count` inputs; run the grader on one
            input of the "size" `count`; grade a "stream" of `studies`; "scan" their headers.
        pack, device, precision, threads: of the product.
        model: of "batch".
        count: of "batch" and "size".
        studies: folders of "stream" and "scan".
        arithmetic: fields of the grader's `Arithmetic`, for "size".
    """

    work: Work
    pack: str
    device: str
    precision: str
    threads: int | None
    model: str = ""
    count: int = 0
    studies: tuple[str, ...] = ()
    arithmetic: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the argument of the command."""
        return json.dumps(asdict(self))


def peak_bytes() -> int:
    """Peak resident memory of this process's own image.

    Linux counts the memory of the process that started it towards ru_maxrss, so VmHWM is read where it is.
    """
    if _STATUS.is_file():
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
        if found:
            return int(found[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _prepare(request: ChildRequest) -> Callable[[], object]:
    """Open what the work needs, and return the work."""
    from stenosis_trt.engine.packs.pack import open_pack

    pack = open_pack(request.pack)
    if request.work == "scan":
        from stenosis_trt.engine.dicom.reader import DicomReader

        # The process ends right after, and its reading processes with it.
        return partial(DicomReader().scan, [Path(folder) for folder in request.studies])
    if request.work == "size":
        from stenosis_trt.bench.scaling.networks import network_at_size
        from stenosis_trt.engine.backends.cpu.candidates import Arithmetic, Execution, ModelChoice

        arithmetic = Arithmetic(*request.arithmetic)
        one = Execution(1, request.threads or usable_cores(), 1)
        chosen = pack.in_precision(arithmetic.precision)
        return network_at_size(
            chosen.models["grader"],
            chosen.read_model("grader"),
            ModelChoice(arithmetic, one, one),
            request.count,
        )
    from stenosis_trt.bench.systems.context import BenchContext
    from stenosis_trt.bench.systems.inputs import StudyInputs
    from stenosis_trt.bench.systems.product import Product

    context = BenchContext(
        pack, request.device, request.precision, request.threads, (), Path(), 0.0, lambda text: None
    )
    product = Product(context)
    if request.work == "batch":
        from stenosis_trt.bench.scaling.networks import noise

        inputs = StudyInputs({request.model: noise(pack.models[request.model], request.count)})
        return partial(product.models, inputs)
    if request.work == "stream":
        return lambda: sum(1 for _ in product.grader.stream(request.studies))
    return lambda: None


def main() -> None:
    """Prepare, and work once for each line of standard input."""
    fields = json.loads(sys.argv[1])
    lists = {name: tuple(fields[name]) for name in ("studies", "arithmetic")}
    request = ChildRequest(**{**fields, **lists})
    work = _prepare(request)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
