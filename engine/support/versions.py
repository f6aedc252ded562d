"""Versions of installed packages."""

from __future__ import annotations

from importlib import metadata


def package_version(name: str) -> str:
    """Return the version of an installed distribution, or "not installed"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
