"""What the tests of pages and viewers share: a browser, packages of npm, and a PACS with a reported study."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_network import LoopbackNetwork
from orthanc_server import OrthancServer
from reported_study import ReportedStudy
from viewer_tools import command_path, need_commands, need_package


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium."""
    need_commands("chromium")
    return command_path("chromium")


@pytest.fixture(scope="session")
def playwright_core() -> Path:
    """Folder of playwright-core, for `require()` in a script of node."""
    return need_package("playwright-core")


@pytest.fixture(scope="session")
def axe_core() -> Path:
    """Folder of axe-core, whose `axe.min.js` a page loads."""
    return need_package("axe-core")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of screenshots: the one that VIEWER_PICTURES names, or a temporary one."""
    named = os.environ.get("VIEWER_PICTURES")
    folder = Path(named).absolute() if named else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def network() -> Iterator[LoopbackNetwork]:
    """A network without other machines."""
    with LoopbackNetwork() as made:
        yield made


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> ReportedStudy:
    """A graded phantom with its reports in files."""
    return ReportedStudy.write(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="session")
def orthanc(
    network: LoopbackNetwork, reported: ReportedStudy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OrthancServer]:
    """Orthanc with the study and all its reports, sent by storescu."""
    with OrthancServer(network, tmp_path_factory.mktemp("orthanc")) as server:
        reports = [path for paths in reported.reports.values() for path in paths]
        server.store([*reported.images, *reports, reported.twin])
        yield server
