"""The hook of the site's build finds whatever a page would load from another host, and lets links be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from documented import ROOT

_POLICY = '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'">'


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / ".ci" / "site_hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _site(folder: Path, page: str, style: str = "") -> SimpleNamespace:
    (folder / "index.html").write_text(page, encoding="utf-8")
    (folder / "style.css").write_text(style, encoding="utf-8")
    return SimpleNamespace(site_dir=str(folder))


def test_a_page_of_its_own_files_with_links_elsewhere_passes(hook: ModuleType, tmp_path: Path) -> None:
    page = (
        f'{_POLICY}<a href="https://example.org">there</a><img src="a.png"><link rel="canonical" href="//x">'
    )
    hook.on_post_build(_site(tmp_path, page, "p { background: url(a.png) }"))


@pytest.mark.parametrize(
    ("page", "style"),
    [
        (_POLICY + '<script src="https://example.org/a.js"></script>', ""),
        (_POLICY + '<img src="//example.org/a.png">', ""),
        (_POLICY + '<link rel="stylesheet" href="https://example.org/a.css">', ""),
        (_POLICY + '<link rel="preconnect" href="https://example.org">', ""),
        (_POLICY + '<p style="background: url(https://example.org/a.png)">', ""),
        (_POLICY + '<pre class="mermaid"></pre>', ""),
        (_POLICY, "@import url(https://example.org/a.css);"),
        (_POLICY, 'p { background: url("https://example.org/a.png") }'),
        ("<p>without a policy</p>", ""),
    ],
)
def test_whatever_would_come_from_another_host_fails_the_build(
    hook: ModuleType, tmp_path: Path, page: str, style: str
) -> None:
    with pytest.raises(RuntimeError, match=r"index\.html|style\.css"):
        hook.on_post_build(_site(tmp_path, page, style))


def test_the_built_pages_carry_the_policy_and_no_font_of_another_host() -> None:
    assert "Content-Security-Policy" in (ROOT / ".ci/site/main.html").read_text(encoding="utf-8")
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in configuration
    assert "repo_url" not in configuration
