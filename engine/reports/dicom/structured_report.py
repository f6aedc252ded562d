"""DICOM structured reports of a study: Comprehensive 3D SR, TID 1500, one of each plane.

Viewers show the measurements of one series at a time, and some of them nothing at all where a group has no
coordinates. So the axial measurements and the points of the levels are two documents in two series. See
docs/structured-report.md.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from stenosis_trt.engine.records import StudyResult
from stenosis_trt.engine.reports.dicom import coded_values as codes
from stenosis_trt.engine.reports.dicom.content_items import (
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    code,
    container,
    content_sequence,
    text,
    uid_reference,
)
from stenosis_trt.engine.reports.dicom.contributing_equipment import MANUFACTURER, contributing_equipment
from stenosis_trt.engine.reports.dicom.dicom_text import long_string
from stenosis_trt.engine.reports.dicom.image_coordinates import (
    PlacedLevel,
    axial_levels,
    check_reportable,
    sagittal_levels,
)
from stenosis_trt.engine.reports.dicom.measurement_groups import (
    GroupContext,
    axial_groups,
    planar_axial_groups,
    planar_sagittal_groups,
    sagittal_groups,
)
from stenosis_trt.engine.reports.dicom.patient_study import patient_and_study
from stenosis_trt.engine.reports.dicom.report_uids import derived_uid, device_uid, report_uid
from stenosis_trt.engine.reports.study_report import CannotReport, Provenance, ReportOptions, StudyReport
from stenosis_trt.engine.reports.text.report_text import report_text
from stenosis_trt.engine.reports.text.wording import NOT_FOR_CLINICAL_USE, level_sentence

if TYPE_CHECKING:
    from pydicom import Dataset

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_SLICER = "slicer"

Groups = Callable[[GroupContext, Iterable[PlacedLevel]], list[bytes]]


@dataclass(frozen=True)
class _Document:
    """One of the two documents: its file, series number and description, and what makes its groups."""

    name: str
    series_number: int
    description: str
    groups: Groups
    planar_groups: Groups


_AXIAL = _Document("sr_axial", 9001, "Spinal cord measurements", axial_groups, planar_axial_groups)
_SAGITTAL = _Document("sr_sagittal", 9002, "Kang grades", sagittal_groups, planar_sagittal_groups)


def make(report: StudyReport, options: ReportOptions) -> dict[str, bytes]:
    """Return `sr_axial.dcm` and `sr_sagittal.dcm`; one of them where only one plane has anything to show.

    The documents depend on nothing but the arguments; their UIDs are explained in `report_uids`.

    Raises:
        CannotReport: the images are not available or their UIDs are not unique or not valid, or nothing was
            found on any of them.
    """
    check_reportable(report)
    planes = ((_AXIAL, axial_levels(report)), (_SAGITTAL, sagittal_levels(report)))
    if not any(levels for _, levels in planes):
        raise CannotReport(
            "No level was graded or measured, so that a structured report has nothing to refer to.",
            "See results.csv for the reasons.",
        )
    # The patient is named in the attributes for it, whose values a PACS corrects; never in the content.
    nameless = replace(report, result=replace(report.result, patient_id=""))
    study = _Study(report, options.sr_for, report_text(nameless, options), report_uid(report, "sr"))
    return {f"{document.name}.dcm": _file(study, document, levels) for document, levels in planes if levels}


@dataclass(frozen=True)
class _Study:
    """What both documents of a study share: the report, its viewer, its text, a UID to derive others from."""

    report: StudyReport
    viewer: str
    words: str
    uid: str


def _file(study: _Study, document: _Document, levels: Sequence[PlacedLevel]) -> bytes:
    """A document as a DICOM file."""
    from pydicom import dcmwrite

    make_groups = document.planar_groups if study.viewer == _SLICER else document.groups
    groups = make_groups(GroupContext(study.report.provenance, study.uid), levels)
    stream = io.BytesIO()
    dcmwrite(stream, _header(study, document, levels), enforce_file_format=True)
    # The content sequence has the highest tag of all.
    return stream.getvalue() + content_sequence(_content(study, groups, levels))


def _content(study: _Study, groups: Iterable[bytes], shown: Iterable[PlacedLevel]) -> list[bytes]:
    """Items of the document, below its title."""
    provenance, result = study.report.provenance, study.report.result
    incomplete = [level for level in result.levels if level.grade is None or level.cord is None]
    names = {placed.level.level for placed in shown}
    in_words = [level for level in result.levels if level in incomplete or level.level not in names]
    diseased = any(level.grade for level in result.levels)
    outcome = codes.PROCESSING_OUTCOMES[not incomplete, diseased]
    summary = [] if provenance.clinical_use else [text(codes.COMMENT, NOT_FOR_CLINICAL_USE)]
    # Lines of a text end in CR LF (PS3.5, 6.1.3).
    summary.append(text(codes.SUMMARY, "\r\n".join(study.words.splitlines())))
    items = [
        code(codes.LANGUAGE, codes.ENGLISH, HAS_CONCEPT_MOD),
        *_observer(provenance),
        code(codes.PROCEDURE_REPORTED, codes.MR_OF_CERVICAL_SPINE, HAS_CONCEPT_MOD),
        container(codes.IMAGING_MEASUREMENTS, groups),
        code(codes.PROCESSING_SUMMARY, outcome),
    ]
    if in_words:
        sentences = [text(codes.FINDING, level_sentence(level)) for level in in_words]
        items.append(container(codes.FINDINGS, sentences))
    return [*items, container(codes.SUMMARY, summary)]


def _observer(provenance: Provenance) -> list[bytes]:
    """Items of TID 1004, Device Observer Identifying Attributes."""
    return [
        code(codes.OBSERVER_TYPE, codes.DEVICE, HAS_OBS_CONTEXT),
        uid_reference(codes.DEVICE_UID, device_uid(provenance), HAS_OBS_CONTEXT),
        text(codes.DEVICE_NAME, MANUFACTURER, HAS_OBS_CONTEXT),
        text(codes.DEVICE_MANUFACTURER, MANUFACTURER, HAS_OBS_CONTEXT),
        text(codes.DEVICE_MODEL, provenance.pack_name, HAS_OBS_CONTEXT),
    ]


def _header(study: _Study, document: _Document, levels: Sequence[PlacedLevel]) -> Dataset:
    """The data set of a document without its content sequence."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    provenance = study.report.provenance
    parts = (document.name, study.viewer, study.words)
    header = patient_and_study(levels[0].placed.image.dataset)
    header.SOPClassUID = COMPREHENSIVE_3D_SR
    header.SOPInstanceUID = derived_uid(study.uid, "instance", *parts)
    header.SeriesInstanceUID = derived_uid(study.uid, "series", *parts)
    header.Modality = "SR"
    header.SeriesNumber, header.InstanceNumber = document.series_number, 1
    use = "" if provenance.clinical_use else ", not for clinical use"
    header.SeriesDescription = f"{document.description}{use}"
    header.Manufacturer, header.ManufacturerModelName = MANUFACTURER, long_string(provenance.pack_name)
    header.DeviceSerialNumber = long_string(provenance.pack_sha256)
    header.SoftwareVersions = long_string(provenance.software_version)
    _date(header, provenance.started)
    header.ReferencedPerformedProcedureStepSequence = []
    header.PerformedProcedureCodeSequence = []
    header.CompletionFlag, header.VerificationFlag = "COMPLETE", "UNVERIFIED"
    header.PreliminaryFlag = "PRELIMINARY"
    header.ContributingEquipmentSequence = [contributing_equipment(provenance)]
    header.CodingSchemeIdentificationSequence = [
        _dataset(
            CodingSchemeDesignator=codes.PRIVATE_SCHEME,
            CodingSchemeName=codes.PRIVATE_SCHEME_NAME,
            CodingSchemeResponsibleOrganization=MANUFACTURER,
        )
    ]
    header.CurrentRequestedProcedureEvidenceSequence = [_evidence(study.report.result, levels)]
    header.ValueType, header.ContinuityOfContent = "CONTAINER", "CONTINUOUS"
    title = codes.REPORT_TITLE
    header.ConceptNameCodeSequence = [
        _dataset(CodeValue=title.value, CodingSchemeDesignator=title.scheme, CodeMeaning=title.meaning)
    ]
    header.ContentTemplateSequence = [_dataset(MappingResource="DCMR", TemplateIdentifier="1500")]
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def _evidence(result: StudyResult, levels: Iterable[PlacedLevel]) -> Dataset:
    """All images that the document refers to, each once, by series."""
    series: dict[str, dict[str, Dataset]] = {}
    for level in levels:
        reference = level.placed.reference
        series.setdefault(level.placed.series_uid, {})[reference.sop_instance_uid] = _dataset(
            ReferencedSOPClassUID=reference.sop_class_uid, ReferencedSOPInstanceUID=reference.sop_instance_uid
        )
    return _dataset(
        StudyInstanceUID=result.study_uid,
        ReferencedSeriesSequence=[
            _dataset(SeriesInstanceUID=uid, ReferencedSOPSequence=list(images.values()))
            for uid, images in series.items()
        ],
    )


def _date(header: Dataset, started: str) -> None:
    """Date the content and the object by the begin of the run, in the time zone of the study's other times.

    That is the images' TimezoneOffsetFromUTC, or where they have none the zone of this machine.
    """
    try:
        moment = datetime.fromisoformat(started.replace("Z", "+00:00"))
    except ValueError:
        raise CannotReport(
            "The record of the run has no valid time of its start.", "Grade the study again, to a new folder."
        ) from None
    offset = str(header.get("TimezoneOffsetFromUTC", ""))
    if offset:
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        zone = timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
        moment = moment.astimezone(zone)
    else:
        moment = moment.astimezone()
    header.ContentDate = header.InstanceCreationDate = header.SeriesDate = moment.strftime("%Y%m%d")
    header.ContentTime = header.InstanceCreationTime = header.SeriesTime = moment.strftime("%H%M%S")


def _dataset(**elements: object) -> Dataset:
    from pydicom import Dataset

    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made
