"""Tests of the packages of npm that the tests of pages and viewers use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from documented import read, rows
from npm_packages import WrongPackageError, npm_package, pinned, pins, verify
from viewer_tools import need_package


@pytest.mark.viewers
def test_a_package_is_unpacked_in_the_version_that_is_pinned(playwright_core: Path) -> None:
    described = json.loads((playwright_core / "package.json").read_text(encoding="utf-8"))
    assert (described["name"], described["version"]) == ("playwright-core", pinned("playwright-core")[0])


@pytest.mark.viewers
def test_a_package_is_fetched_once(playwright_core: Path) -> None:
    marked = playwright_core.stat().st_mtime_ns, playwright_core.stat().st_ino
    again = need_package("playwright-core")
    assert (again.stat().st_mtime_ns, again.stat().st_ino) == marked


def test_an_archive_that_differs_from_its_pin_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "package.tgz"
    archive.write_bytes(b"another content")
    with pytest.raises(WrongPackageError, match="is not the archive"):
        verify(archive, pins()["axe-core@4.14.1"])


def test_a_package_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(WrongPackageError, match=r"left-pad@1\.3\.0 is not in"):
        npm_package("left-pad", "1.3.0")


def test_versions_are_sorted_as_numbers() -> None:
    assert pinned("@ohif/app") == ["3.13.2", "3.12.10"]


def test_docs_name_the_versions_of_ohif_that_are_tested() -> None:
    table = rows(read("docs/viewers.md"), "## What each viewer shows")
    tested = [row[1] for row in table if row[0] == "OHIF" and row[-1] == "tested"]
    assert tested == pinned("@ohif/app")
