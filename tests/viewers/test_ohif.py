"""Structured reports in OHIF, with the images in Orthanc: what a person who opens the study sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from loopback_network import LoopbackNetwork
from npm_packages import pinned
from ohif_view import (
    DisplaySet,
    View,
    deviations,
    disturbances,
    expected_axial,
    expected_sagittal,
    open_in_ohif,
)
from orthanc_server import OrthancServer, PageServer
from reported_study import ReportedStudy
from viewer_tools import need_commands, need_package

pytestmark = pytest.mark.viewers


@pytest.fixture(scope="module", params=pinned("@ohif/app"))
def views(
    request: pytest.FixtureRequest,
    network: LoopbackNetwork,
    orthanc: OrthancServer,
    reported: ReportedStudy,
    playwright_core: Path,
    chromium: str,
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, View]:
    """Views of the reports in one version of OHIF."""
    need_commands("node")
    version = request.param
    dist = need_package("@ohif/app", version) / "dist"
    folder = pictures / f"ohif-{version}"
    folder.mkdir(exist_ok=True)
    display_sets = [
        DisplaySet("axial", _series_uid(reported.axial)),
        DisplaySet("sagittal", _series_uid(reported.sagittal)),
        DisplaySet("twin", _series_uid(reported.twin), drawing_seconds=8.0),
        DisplaySet("capture", _series_uid(reported.reports["sc"][0])),
    ]
    with PageServer(network, dist, tmp_path_factory.mktemp("pages"), 8080) as pages:
        found = open_in_ohif(
            network, pages.url, reported.study_uid, display_sets, playwright_core, chromium, folder
        )
    for view in found.values():
        view["version"] = version
    return found


def test_the_axial_report_shows_diameters_ratio_and_grade_of_each_level(
    views: dict[str, View], reported: ReportedStudy
) -> None:
    expected = expected_axial(reported.report)
    assert len(expected) == 4
    assert deviations(views["axial"], expected) == []


def test_the_sagittal_report_shows_the_point_and_the_grade_of_each_level(
    views: dict[str, View], reported: ReportedStudy
) -> None:
    expected = expected_sagittal(reported.report)
    assert len(expected) == 4
    assert deviations(views["sagittal"], expected) == []


def test_ohif_draws_before_anybody_scrolls_but_for_version_3_12(views: dict[str, View]) -> None:
    """OHIF 3.12 does not draw a measurement of the image that it shows already; see docs/viewers.md."""
    scrolled = [step["scrolled"] for name in ("axial", "sagittal") for step in views[name]["steps"]]
    assert not any(scrolled) or views["axial"]["version"].startswith("3.12.")


def test_the_secondary_capture_is_a_series_of_colour_pictures(
    views: dict[str, View], reported: ReportedStudy
) -> None:
    view = views["capture"]
    assert (view["opened"], disturbances(view)) == ("", [])
    assert view["state"]["images"] == len(reported.reports["sc"]) == 7
    (step,) = view["steps"]
    (shown,) = step["value"]
    assert step["settled"]
    assert shown["bright"] > 0.1
    assert shown["coloured"] > 1e-3


def test_a_group_without_coordinates_would_be_noticed(
    views: dict[str, View], reported: ReportedStudy
) -> None:
    found = deviations(views["twin"], expected_axial(reported.report))
    assert views["twin"]["state"]["isLoaded"]
    assert {"measurement 1 is not loaded", "measurement 1 is not drawn on its image"} <= set(found)


def test_a_line_elsewhere_would_be_noticed(views: dict[str, View], reported: ReportedStudy) -> None:
    first, *others = expected_axial(reported.report)
    (x, y, z), end = first.shapes[0]
    moved = replace(first, shapes=(((x + 1.5, y, z), end), first.shapes[1]))
    found = deviations(views["axial"], [moved, *others])
    assert [text.split(" mm of ")[0] for text in found] == [
        f"{first.title}: no annotation is within 1",
        f"{first.title}: nothing is drawn within 1",
    ]


def test_a_line_on_another_image_would_be_noticed(views: dict[str, View], reported: ReportedStudy) -> None:
    first, second, *others = expected_axial(reported.report)
    found = deviations(views["axial"], [replace(first, sop=second.sop), second, *others])
    assert f"{first.title}: it is not listed once, with its values and its image" in found
    assert f"{first.title}: its text is not on the screen with its image" in found


def _series_uid(path: Path) -> str:
    return str(pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
