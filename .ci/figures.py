"""Check the JSON of `stenosis_trt.bench.accuracy.compare` against the bounds of the reference pack."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_AT_LEAST = {"kappa": 0.9, "found_within_4_mm": 0.95}
_AT_MOST = {"ratio_mean_absolute_error": 0.035}


def main(path: Path) -> int:
    """Print the figures that miss their bound; return 1 if there are any, else 0."""
    figures = json.loads(path.read_text(encoding="utf-8"))
    low = [
        f"{name} is {figures[name]:.3f}, not {least}"
        for name, least in _AT_LEAST.items()
        if not figures[name] >= least
    ]
    high = [
        f"{name} is {figures[name]:.3f}, not {most}"
        for name, most in _AT_MOST.items()
        if not figures[name] <= most
    ]
    for line in (*low, *high):
        print(line, file=sys.stderr)
    return 1 if low or high else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
