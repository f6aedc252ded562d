"""The structured reports of a study: what they say, and that other software reads it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code as StandardCode
from report_samples import sample_report, with_levels
from sr_trees import children, dciodvfy_errors, descendants, documents, groups, name_of, tool, value_of

from stenosis_trt.engine.records import LEVELS, HealthyComparison, LevelResult
from stenosis_trt.engine.reports.dicom import coded_values as codes
from stenosis_trt.engine.reports.dicom.coded_values import Code
from stenosis_trt.engine.reports.dicom.report_uids import device_uid
from stenosis_trt.engine.reports.dicom.structured_report import make
from stenosis_trt.engine.reports.study_report import CannotReport, ReportOptions, StudyReport
from stenosis_trt.engine.reports.text.report_text import report_text

NAMES = ["sr_axial", "sr_sagittal"]
HEALTHY = HealthyComparison(-2.31, -1.5, 0.25, 1.04, 6.7, 59.9)


def _ungraded(level: LevelResult) -> LevelResult:
    """C7/T1 was not seen, C6/7 was measured and not graded, C5/6 was graded and not measured."""
    if level.level in ("C5/6", "C7/T1"):
        level = replace(level, cord=None, mscc=None, healthy=None, warnings=("no_axial_slice",))
    if level.level in ("C6/7", "C7/T1"):
        level = replace(level, grade=None, probabilities=None, warnings=("out_of_distribution",))
    if level.level == "C7/T1":
        level = replace(level, point=None, warnings=("level_out_of_view",))
    return level


def _compared(level: LevelResult) -> LevelResult:
    return replace(level, mscc=0.3127, healthy=HEALTHY)


@pytest.mark.parametrize("sr_for", ["ohif", "slicer"])
@pytest.mark.parametrize("change", [lambda level: level, _ungraded, _compared])
def test_dciodvfy_finds_no_error(sr_for: str, change: object, tmp_path: Path) -> None:
    report = with_levels(sample_report(), change)  # type: ignore[arg-type]
    files = make(report, ReportOptions(sr_for=sr_for))
    assert sorted(files) == ["sr_axial.dcm", "sr_sagittal.dcm"]
    for name, content in files.items():
        assert dciodvfy_errors(content, tmp_path / name) == []


def test_dciodvfy_finds_what_is_wrong(tmp_path: Path) -> None:
    """So that the tests above can fail."""
    content = make(sample_report(), ReportOptions())["sr_axial.dcm"]
    assert dciodvfy_errors(content.replace(b"UNVERIFIED", b"UNVERIFUED"), tmp_path / "sr.dcm") != []


def test_dsrdump_reads_every_level(tmp_path: Path) -> None:
    for name, content in make(sample_report(), ReportOptions()).items():
        (tmp_path / name).write_bytes(content)
        command = [tool("dsrdump", "dcmtk"), "+Pl", str(tmp_path / name)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for level in sample_report().result.levels:
            assert f'"{level.level} Kang grade {level.grade}"' in shown


def test_highdicom_reads_back_the_numbers_of_the_result() -> None:
    report = sample_report()
    read = {name: sr.Comprehensive3DSR.from_dataset(item) for name, item in documents(report).items()}
    axial = read["sr_axial"].content.get_image_measurement_groups()
    sagittal = read["sr_sagittal"].content.get_image_measurement_groups()
    for level, on_axial, on_sagittal in zip(report.result.levels, axial, sagittal, strict=True):
        assert level.cord is not None
        assert level.probabilities is not None
        assert level.grade is not None
        assert _numbers(on_axial) == {
            "Cord AP diameter": (round(level.cord.ap_mm, 2), "mm"),
            "Cord transverse diameter": (round(level.cord.transverse_mm, 2), "mm"),
            "Cord compression ratio": (round(level.cord.compression_ratio, 4), "{ratio}"),
        }
        probability = round(100 * level.probabilities[level.grade], 2)
        assert _numbers(on_sagittal) == {"Probability of the Kang grade": (probability, "%")}
        for group in (on_axial, on_sagittal):
            evaluations = {
                item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()
            }
            assert evaluations["Kang grade"] == f"Kang grade {level.grade}"
            assert evaluations["Severity"] == ("None", "Mild", "Moderate", "Severe")[level.grade]
            assert [site.value.meaning for site in group.finding_sites] == [codes.DISCS[level.level].meaning]


def _numbers(group: sr.MeasurementsAndQualitativeEvaluations) -> dict[str, tuple[float, str]]:
    return {item.name.meaning: (item.value, item.unit.value) for item in group.get_measurements()}


def test_a_measurement_group_is_what_highdicom_builds() -> None:
    report = sample_report()
    level = report.result.levels[3]
    assert level.cord is not None
    assert report.images is not None
    image = report.images.axial[level.level]
    pixels = image.pose.to_pixels(np.array(level.cord.points))[:, :2] + 0.5
    source = sr.SourceImageForRegion(image.dataset.SOPClassUID, image.dataset.SOPInstanceUID)

    def measured(name: Code, value: float, unit: Code, points: slice) -> sr.Measurement:
        coordinates = sr.CoordinatesForMeasurement("POLYLINE", pixels[points], source)
        return sr.Measurement(
            StandardCode(*name), value, StandardCode(*unit), referenced_coordinates=[coordinates]
        )

    ours = groups(documents(report)["sr_axial"])[3]
    provenance = report.provenance
    theirs = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(uid=children(ours, codes.TRACKING_UID)[0].UID, identifier="C5/6 cord"),
        finding_type=StandardCode(*codes.SPINAL_STENOSIS),
        finding_sites=[sr.FindingSite(standard.cid7604.C5C6Disc)],
        algorithm_id=sr.AlgorithmIdentification(
            provenance.pack_name,
            provenance.pack_version,
            [
                f"software version: {provenance.software_version}",
                f"backend: {provenance.backend}",
                f"precision: {provenance.precision}",
                f"SHA-256 of the pack: {provenance.pack_sha256}",
            ],
            standard.DCM.ArtificialIntelligence,
            "stenosis-trt",
        ),
        measurements=[
            measured(codes.AP_DIAMETER, round(level.cord.ap_mm, 2), codes.MILLIMETRE, slice(0, 2)),
            measured(
                codes.TRANSVERSE_DIAMETER, round(level.cord.transverse_mm, 2), codes.MILLIMETRE, slice(2, 4)
            ),
            measured(
                codes.COMPRESSION_RATIO, round(level.cord.compression_ratio, 4), codes.RATIO_UNIT, slice(2, 4)
            ),
        ],
    )[0]
    assert len(ours.ContentSequence) == len(theirs.ContentSequence) + 4
    # Kang grade, severity, further values and comment follow.
    del ours.ContentSequence[-4:]
    assert _plain(ours) == _plain(theirs)


def test_a_planar_region_is_what_highdicom_builds() -> None:
    report = sample_report()
    level = report.result.levels[5]
    assert report.images is not None
    assert level.probabilities is not None
    assert level.grade is not None
    image = report.images.sagittal[level.level]
    region = sr.ImageRegion(
        "POINT",
        image.pose.to_pixels(np.array([level.point]))[:, :2] + 0.5,
        sr.SourceImageForRegion(image.dataset.SOPClassUID, image.dataset.SOPInstanceUID),
    )
    theirs = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(uid="1.2.3", identifier="C7/T1 level"),
        referenced_region=region,
        finding_type=StandardCode(*codes.SPINAL_STENOSIS),
        measurements=[
            sr.Measurement(
                StandardCode(*codes.PROBABILITY),
                round(100 * level.probabilities[level.grade], 2),
                StandardCode(*codes.PERCENT),
            )
        ],
    )[0]
    ours = groups(documents(report, "slicer")["sr_sagittal"])[5]
    assert _plain(ours.ContentTemplateSequence[0]) == _plain(theirs.ContentTemplateSequence[0])
    for name in (codes.FINDING, codes.PROBABILITY, codes.IMAGE_REGION):
        assert [_plain(item) for item in children(ours, name)] == [
            _plain(item) for item in children(theirs, name)
        ]


def _plain(item: Dataset) -> object:
    """The item as nested lists of keywords and values, so that its class and its encoding do not count."""
    return [
        (element.keyword, [_plain(part) for part in element.value])
        if element.VR == "SQ"
        else (
            element.keyword,
            np.float32(element.value).tolist() if element.VR in ("DS", "FL") else str(element.value),
        )
        for element in item
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_preliminary_unverified_and_of_the_patient_and_study(name: str) -> None:
    report = sample_report()
    assert report.images is not None
    image = next(iter(report.images.axial.values())).dataset
    document = documents(report)[name]
    assert (document.PreliminaryFlag, document.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert document.CompletionFlag == "COMPLETE"
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"):
        assert document[keyword].value == image[keyword].value
    assert document.Modality == "SR"
    assert (document.ContentDate, document.ContentTime) == ("20260102", "030405")
    (procedure,) = children(document, codes.PROCEDURE_REPORTED)
    assert value_of(procedure) == codes.MR_OF_CERVICAL_SPINE


def test_content_is_dated_in_the_time_zone_of_the_images() -> None:
    report = sample_report()
    assert report.images is not None
    for image in report.images.axial.values():
        image.dataset.TimezoneOffsetFromUTC = "-0530"
    document = documents(report)["sr_axial"]
    assert document.TimezoneOffsetFromUTC == "-0530"
    assert (document.ContentDate, document.ContentTime) == ("20260101", "213405")


def test_a_run_without_a_valid_time_has_no_report() -> None:
    report = sample_report()
    with pytest.raises(CannotReport, match="no valid time"):
        make(replace(report, provenance=replace(report.provenance, started="")), ReportOptions())


def test_the_two_documents_are_two_series_that_refer_to_one_series_of_images_each() -> None:
    report = sample_report()
    both = documents(report)
    assert len({document.SeriesInstanceUID for document in both.values()}) == 2
    assert len({document.SOPInstanceUID for document in both.values()}) == 2
    assert len({document.SeriesNumber for document in both.values()}) == 2
    expected = {"sr_axial": report.result.axial_series_uid, "sr_sagittal": report.result.sagittal_series_uid}
    for name, document in both.items():
        (study,) = document.CurrentRequestedProcedureEvidenceSequence
        assert study.StudyInstanceUID == report.result.study_uid
        (series,) = study.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == expected[name]
        named = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
        assert len(named) == len(series.ReferencedSOPSequence)
        assert named == {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in descendants(document)
            if item.ValueType == "IMAGE"
        }


def test_the_algorithm_is_the_observer_and_contributing_equipment() -> None:
    report = sample_report()
    for document in documents(report).values():
        (item,) = document.ContributingEquipmentSequence
        (purpose,) = item.PurposeOfReferenceCodeSequence
        assert StandardCode(purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning) == (
            standard.cid7005.ProcessingEquipment
        )
        assert item.DeviceUID == device_uid(report.provenance)
        assert item.DeviceUID == children(document, codes.DEVICE_UID)[0].UID
        for group in groups(document):
            texts = {name_of(child): child.TextValue for child in children(group, None, "TEXT")}
            assert texts[codes.ALGORITHM_NAME] == report.provenance.pack_name
            assert texts[codes.ALGORITHM_VERSION] == report.provenance.pack_version
            assert value_of(children(group, codes.ALGORITHM_FAMILY)[0]) == codes.ARTIFICIAL_INTELLIGENCE


@pytest.mark.parametrize("clinical_use", [False, True])
def test_a_report_says_so_unless_it_is_for_clinical_use(clinical_use: bool) -> None:
    report = sample_report()
    report = replace(report, provenance=replace(report.provenance, clinical_use=clinical_use))
    for document in documents(report).values():
        (summary,) = children(document, codes.SUMMARY)
        said = [item.TextValue for item in children(summary, codes.COMMENT)]
        assert said == ([] if clinical_use else ["Not for clinical use."])
        assert document.SeriesDescription.endswith(", not for clinical use") != clinical_use
        equipment = document.ContributingEquipmentSequence[0].ContributionDescription
        assert ("Not for clinical use." in equipment) != clinical_use


def test_the_report_text_is_there_line_by_line() -> None:
    report = with_levels(sample_report(), _compared)
    words = report_text(report, ReportOptions())
    assert "−" in words, "the test wants a character that Latin-1 does not have"
    for document in documents(report).values():
        (summary,) = children(document, codes.SUMMARY)
        (item,) = children(summary, codes.SUMMARY)
        assert item.TextValue.split("\r\n") == words.splitlines()


def test_probabilities_and_confidence_are_below_the_grade_and_a_text() -> None:
    report = with_levels(sample_report(), _compared)
    for document in documents(report).values():
        for level, group in zip(report.result.levels, groups(document), strict=True):
            (grade,) = children(group, codes.KANG_GRADE)
            assert value_of(grade) == codes.KANG_GRADES[level.grade or 0]
            assert level.probabilities is not None
            for code, value in zip(codes.PROBABILITIES, level.probabilities, strict=True):
                assert _number(children(grade, code)[0]) == round(100 * value, 2)
            (further,) = children(group, codes.FURTHER_VALUES)
            numbers = {name_of(item): _number(item) for item in children(further)}
            assert level.cord is not None
            assert numbers == {
                codes.CONFIDENCE: round(100 * level.confidence, 2),
                codes.CORD_CONFIDENCE: round(100 * level.cord.confidence, 2),
                codes.MSCC: 0.3127,
                codes.RATIO_Z: -2.31,
                codes.AP_Z: -1.5,
                codes.TRANSVERSE_Z: 0.25,
                codes.RATIO_PERCENTILE: 1.04,
                codes.AP_PERCENTILE: 6.7,
                codes.TRANSVERSE_PERCENTILE: 59.9,
            }
            assert "MSCC 0.31; ratio z -2.3; ratio percentile 1;" in further.TextValue


def _number(item: Dataset) -> float:
    (value,) = item.MeasuredValueSequence
    assert float(value.NumericValue) == value.FloatingPointValue
    return float(value.NumericValue)


def test_levels_without_grade_or_measurement_stand_in_a_text_with_their_reason() -> None:
    report = with_levels(sample_report(), _ungraded)
    both = documents(report)
    comments = {
        name: [children(group, codes.COMMENT)[0].TextValue for group in groups(document)]
        for name, document in both.items()
    }
    graded = [
        f"{level} Kang grade {level_grade}" for level, level_grade in zip(LEVELS, (0, 0, 0, 3), strict=False)
    ]
    assert comments["sr_sagittal"] == graded
    assert comments["sr_axial"] == [*graded[:3], "C6/7 not graded"]
    for document in both.values():
        (findings,) = children(document, codes.FINDINGS)
        said = [item.TextValue for item in children(findings, codes.FINDING, "TEXT")]
        assert len(said) == 3
        assert said[0].startswith("C5/6: severe stenosis")
        assert "compression ratio not measured (no axial slice near a level)" in said[0]
        assert said[1].startswith("C6/7: not graded (a region is unlike the training data)")
        assert said[2] == "C7/T1: not graded (the images do not reach a disc)."


def test_a_measured_level_without_grade_has_no_grade_severity_or_stenosis() -> None:
    group = groups(documents(with_levels(sample_report(), _ungraded))["sr_axial"])[3]
    assert value_of(children(group, codes.FINDING)[0]) == codes.SPINAL_CORD
    assert children(group, codes.KANG_GRADE) == children(group, codes.SEVERITY) == []


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (lambda level: level, "111242"),
        (lambda level: replace(level, grade=0), "111241"),
        (lambda level: _ungraded(replace(level, grade=0)), "111243"),
        (_ungraded, "111244"),
    ],
)
def test_the_outcome_tells_failed_from_nothing_found(change: object, outcome: str) -> None:
    for document in documents(with_levels(sample_report(), change)).values():  # type: ignore[arg-type]
        (item,) = children(document, codes.PROCESSING_SUMMARY)
        assert value_of(item).value == outcome


def test_without_an_axial_series_there_is_the_sagittal_document_alone() -> None:
    report = with_levels(
        sample_report(), lambda level: replace(level, cord=None, warnings=("no_axial_series",))
    )
    assert list(documents(report)) == ["sr_sagittal"]


def test_without_any_coordinates_there_is_no_report() -> None:
    report = with_levels(
        sample_report(), lambda level: replace(level, point=None, grade=None, probabilities=None, cord=None)
    )
    with pytest.raises(CannotReport, match="No level was graded or measured"):
        make(report, ReportOptions())


def test_a_point_beside_its_image_is_not_drawn_but_told() -> None:
    def far(level: LevelResult) -> LevelResult:
        return replace(level, point=(0.0, 900.0, 0.0)) if level.level == "C2/3" else level

    both = documents(with_levels(sample_report(), far))
    drawn = {
        name: [children(group, codes.COMMENT)[0].TextValue.split()[0] for group in groups(document)]
        for name, document in both.items()
    }
    assert drawn == {"sr_axial": list(LEVELS), "sr_sagittal": list(LEVELS[1:])}
    (findings,) = children(both["sr_sagittal"], codes.FINDINGS)
    assert [item.TextValue.split(" (")[0] for item in children(findings)] == ["C2/3: no stenosis"]
    assert children(both["sr_axial"], codes.FINDINGS) == []


def test_making_both_reports_is_quick() -> None:
    """10 ms measured; highdicom takes 240 ms for them, and a study is graded in half a second."""
    import time

    report = sample_report()
    make(report, ReportOptions())
    durations = []
    for _ in range(5):
        start = time.thread_time()
        make(report, ReportOptions())
        durations.append(time.thread_time() - start)
    assert min(durations) < 0.06


def test_the_same_arguments_give_the_same_bytes() -> None:
    report: StudyReport = sample_report()
    assert make(report, ReportOptions()) == make(report, ReportOptions())
