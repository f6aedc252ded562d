"""The Jinja2 template of the report text: its variables, and how it is loaded, checked and rendered.

A site can replace the template, so it is rendered in a sandbox: it reaches no file and no Python object but
its variables. A variable that does not exist is an error.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stenosis_trt.engine.errors import InputError, StenosisError
from stenosis_trt.engine.records import LEVELS, CordMeasurement, HealthyComparison, LevelResult, StudyResult
from stenosis_trt.engine.reports.study_report import CannotReport, Provenance, StudyReport
from stenosis_trt.engine.reports.text import wording
from stenosis_trt.engine.support.safe_text import escape_controls, escape_controls_in

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "report.txt.j2"
_MAX_BYTES = 1 << 20
_ADVICE = "Compare it with docs/report-text.md, which lists the variables."


def template_variables(report: StudyReport) -> dict[str, Any]:
    """Return the variables of the template; docs/report-text.md describes them.

    They hold plain values, with control characters escaped. The patient is named by `patient_id` alone, which
    is "" unless identifiers are kept.
    """
    result, provenance = report.result, report.provenance
    variables: dict[str, Any] = {
        "study_number": report.number,
        "study_uid": result.study_uid,
        "patient_id": result.patient_id,
        "levels": [_level_variables(level) for level in result.levels],
        "impression": wording.impression(result),
        "cautions": wording.cautions(result),
        "not_assessed": wording.not_assessed(result),
        "compared_with_healthy": any(_is_compared(level) for level in result.levels),
        "clinical_use": provenance.clinical_use,
        "disclaimer": "" if provenance.clinical_use else wording.NOT_FOR_CLINICAL_USE,
        "pack": {
            "name": provenance.pack_name,
            "version": provenance.pack_version,
            "sha256": provenance.pack_sha256,
            "intended_use": " ".join(provenance.intended_use.split()),
        },
        "software_version": provenance.software_version,
        "backend": provenance.backend,
        "precision": provenance.precision,
        "started": provenance.started,
    }
    return {name: escape_controls_in(value) for name, value in variables.items()}


def _is_compared(level: LevelResult) -> bool:
    return level.healthy is not None and level.healthy.compression_ratio_z is not None


def _level_variables(level: LevelResult) -> dict[str, Any]:
    cord = level.cord
    return {
        "level": level.level,
        "grade": level.grade,
        "meaning": None if level.grade is None else wording.KANG_MEANINGS[level.grade],
        "finding": wording.finding(level),
        "sentence": wording.level_sentence(level, with_cautions=False),
        "sentence_with_cautions": wording.level_sentence(level),
        "probabilities": None if level.probabilities is None else list(level.probabilities),
        "confidence": level.confidence,
        "compression_ratio": None if cord is None else cord.compression_ratio,
        "ap_mm": None if cord is None else cord.ap_mm,
        "transverse_mm": None if cord is None else cord.transverse_mm,
        "slice_angle_degrees": None if cord is None else cord.slice_angle_degrees,
        "mscc": level.mscc,
        "mscc_reference": level.mscc_reference,
        "healthy": None if level.healthy is None else asdict(level.healthy),
        "warnings": {name: wording.meaning(name) for name in level.warnings},
    }


def render_report(report: StudyReport, template: Path | None) -> str:
    """Return the text of a report.

    Args:
        report: the study.
        template: a Jinja2 template; None for the one of this package.

    Raises:
        CannotReport: the template cannot be read, or fails with this study.
    """
    try:
        return _rendered(_compiled(_source(template)), report)
    except StenosisError as error:
        raise CannotReport(error.reason, error.advice) from error


def check_template(template: Path | None) -> None:
    """Render a template with two made-up studies, so that a faulty one is found before a run.

    Raises:
        InputError: the template cannot be read, is not valid, or uses a variable that does not exist.
        StenosisError: Jinja2 is not installed.
    """
    compiled = _compiled(_source(template))
    for report in _examples():
        _rendered(compiled, report)


def _source(path: Path | None) -> str:
    if path is None:
        return (
            files("stenosis_trt.engine.reports.text")
            .joinpath("templates")
            .joinpath(_TEMPLATE)
            .read_text("utf-8")
        )
    try:
        # Reading a pipe or device may block, or never end.
        if not path.is_file():
            raise InputError("The template of the report text is no file.", "Give the path of a Jinja2 file.")
        if path.stat().st_size > _MAX_BYTES:
            raise InputError("The template of the report text is larger than 1 MiB.", _ADVICE)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The template of the report text cannot be read ({type(error).__name__}).",
            "Give the path of a Jinja2 file in UTF-8.",
        ) from error


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    try:
        from jinja2 import StrictUndefined, TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError as error:
        raise StenosisError(
            "The report text needs Jinja2, which is not installed.", "pip install 'stenosis-trt[report]'"
        ) from error
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        reason = f"The template of the report text is not valid in line {error.lineno}: {error.message}"
        raise InputError(f"{escape_controls(reason).rstrip('.')}.", _ADVICE) from error


def _rendered(template: Template, report: StudyReport) -> str:
    from jinja2 import TemplateError

    try:
        return template.render(template_variables(report))
    except TemplateError as error:
        why = escape_controls(str(error)).rstrip(".")
    except Exception as error:  # noqa: BLE001 - the expressions of a template may raise anything
        # The message may quote a variable.
        why = type(error).__name__
    raise InputError(f"The template of the report text fails: {why}.", _ADVICE)


def _examples() -> tuple[StudyReport, StudyReport]:
    """Return a study in which every value is known, and one in which none is."""
    point = (0.0, 0.0, 0.0)
    cord = CordMeasurement("1.2.3", (point, point, point, point), 5.3, 12.9, 0.41, 0.8)
    healthy = HealthyComparison(-2.3, -2.0, 0.1, 1.0, 2.3, 54.0)
    full = tuple(
        LevelResult(
            name,
            point,
            number % 4,
            (0.25, 0.25, 0.25, 0.25),
            cord,
            "1.2.4",
            0.25,
            ("level_number_uncertain",),
            mscc=0.3,
            healthy=healthy,
        )
        for number, name in enumerate(LEVELS)
    )
    empty = tuple(LevelResult(name, None, None, None, None, "", 0.0, ("level_not_found",)) for name in LEVELS)
    provenance = Provenance("example", "1", "0" * 64, "Tests.", False, "1", "onnxruntime", "fp32", "")
    complete, bare = (
        StudyResult("1.2", "", "1.2.5", "", levels, (), ("lossy_compression",)) for levels in (full, empty)
    )
    return StudyReport(1, "0" * 64, "", complete, provenance), StudyReport(2, "1" * 64, "", bare, provenance)
