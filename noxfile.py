"""The usual commands, run with the tools of the active environment: `nox -s lint`, `nox --list`."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

PACKAGES = [f"stenosis_trt.{name}" for name in ("engine", "kernels", "export", "bench")]


@nox.session
def lint(session: nox.Session) -> None:
    """Format and lint, without changing anything."""
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Type-check the four packages for Python 3.10."""
    session.run("mypy", *(word for name in PACKAGES for word in ("-p", name)))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on all cores, without those marked slow or viewers; arguments go to pytest."""
    session.run(
        "pytest", "-n", "auto", "--dist", "loadfile", "-m", "not slow and not viewers", *session.posargs
    )


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests marked slow: trainings, searches, conversions of whole networks."""
    session.run("pytest", "-n", "auto", "--dist", "loadfile", "-m", "slow", *session.posargs)


@nox.session
def viewers(session: nox.Session) -> None:
    """Open reports in OHIF and Chromium, and send them to Orthanc; CONTRIBUTING.md says what it needs."""
    session.run("pytest", "-m", "viewers", "tests/viewers", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site strictly, into site/."""
    session.run("mkdocs", "build", "--strict")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure time and memory of a study on this machine."""
    session.run("python", "-m", "stenosis_trt.bench.speed.study_time", "--studies", "10")
