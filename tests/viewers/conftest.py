"""What the tests of pages and viewers share: a headless browser and the packages of npm that drive it."""

from __future__ import annotations

from pathlib import Path

import pytest
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
