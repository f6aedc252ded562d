"""The HTML report of a run: one file that needs nothing else, written piece by piece.

What comes from headers and results is embedded as JSON in script elements of a data type, which a browser
does not run; the page's script writes it with `textContent` alone. The content security policy lets through
the page's own style and script, by their hashes, and pictures in data URLs. So nothing is loaded or sent, and
text cannot become markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from stenosis_trt.engine.grading.healthy import healthy_norms, is_comparable
from stenosis_trt.engine.reports.page.html_study import PIECE_FORMAT
from stenosis_trt.engine.reports.pictures.grade_colours import GRADE_STYLES, MEASUREMENT_COLOUR
from stenosis_trt.engine.reports.run_report import RunReport
from stenosis_trt.engine.support.html_pages import content_security_policy, page_template
from stenosis_trt.engine.support.safe_text import escape_controls_in

if TYPE_CHECKING:
    from markupsafe import Markup

FILE_NAME = "report.html"

_RATIO = "compression_ratio"

_PRINTED_WARNING = '@page{@top-center{content:"Not for clinical use.";font:bold 9pt system-ui,sans-serif}}\n'
"""Style of the margin of printed pages."""

_SCRIPTS = (
    "page_dom.js",
    "page_data.js",
    "page_decisions.js",
    "page_csv.js",
    "page_plots.js",
    "page_overview.js",
    "page_pictures.js",
    "page_study.js",
    "page_review.js",
    "page_main.js",
)
"""Parts of the page's script, in the order in which they are joined."""

_IN_SCRIPT = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
"""Characters that could end a script element, begin a comment or an entity, or end a line of JavaScript."""


def compose(out: TextIO, run: RunReport, pieces: Iterable[bytes]) -> None:
    """Write the page.

    Args:
        out: text stream, UTF-8.
        run: the run.
        pieces: one of `html_study` for each study, in the order of the study numbers. Each is taken when it
            is written, so that one at a time is in memory.

    Raises:
        ValueError: a piece is not one that this version of `html_study` makes.
    """
    from markupsafe import Markup

    style, script = _style(run.provenance.clinical_use), _script()
    chunks = page_template(__name__.rpartition(".")[0], "page.html.j2").generate(
        policy=content_security_policy(style, script, "img-src data:"),
        style=Markup(style),
        script=Markup(script),
        run=_escaped(run),
        run_json=_embedded({"key": run.key, "healthy_ratios": _healthy_ratios()}),
        studies=_studies(pieces),
    )
    for chunk in chunks:
        out.write(chunk)


def _studies(pieces: Iterable[bytes]) -> Iterator[tuple[Markup, Markup]]:
    """Yield data and pictures of each study as JSON: a browser parses pictures when they are shown."""
    for piece in pieces:
        study = json.loads(piece)
        if not isinstance(study, dict) or study.get("format") != PIECE_FORMAT:
            raise ValueError("A piece of the HTML report was made by another version.")
        pictures = study.pop("pictures", None)
        yield _embedded({**study, "has_pictures": pictures is not None}), _embedded(pictures)


def _embedded(value: Any) -> Markup:
    """Return JSON that is safe inside a script element, and means the same there."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    # Outside of its strings, JSON has none of these characters.
    return Markup(text.translate(_IN_SCRIPT))


def _escaped(run: RunReport) -> Mapping[str, Any]:
    provenance = {
        name: " ".join(value.split()) if isinstance(value, str) else value
        for name, value in asdict(run.provenance).items()
    }
    return {
        "provenance": escape_controls_in(provenance),
        "counts": {**asdict(run.counts), "open": run.counts.open},
        "failed": [escape_controls_in(study._asdict()) for study in run.failed],
    }


def _healthy_ratios() -> dict[str, list[float]]:
    """Return the middle 95 % of the compression ratios of healthy adults, by level, where they compare."""
    return {
        level: np.percentile(norms[_RATIO].percentiles, (2.5, 97.5)).round(4).tolist()
        for level, norms in healthy_norms().items()
        if is_comparable(level, _RATIO)
    }


def _style(clinical_use: bool) -> str:
    """Return the style, with the colours that all pictures share and a warning on each printed page."""
    colours = "".join(f"--g{style.grade}:{style.css};" for style in GRADE_STYLES)
    red, green, blue = MEASUREMENT_COLOUR
    shared = f":root{{{colours}--measured:rgb({red} {green} {blue})}}\n"
    return shared + _file("page.css") + ("" if clinical_use else _PRINTED_WARNING)


def _script() -> str:
    """Return the page's script: its parts in one function, so that they share names and nothing else does."""
    return "\n".join(["(() => {", '"use strict";', *map(_file, _SCRIPTS), "})();"])


@cache
def _file(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath("templates").joinpath(name).read_text("utf-8")
