"""A hook of MkDocs: the build fails if a built page would load something from another host.

Links may lead there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

_LOADED = {"src", "srcset", "poster", "data", "action", "background"}
"""Attributes whose address a browser loads or sends to, whatever the element."""
_LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
_REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_REMOTE_IN_CSS = re.compile(r"""(?:@import|url\()\s*\(?["']?\s*(?:https?:)?//[^"')\s]+""", re.IGNORECASE)


class _Page(HTMLParser):
    """Collects what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.has_policy = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        relations = set(values.get("rel", "").lower().split())
        self.has_policy |= values.get("http-equiv", "").lower() == "content-security-policy"
        for name, value in values.items():
            loads = name in _LOADED or (name == "href" and tag == "link" and relations & _LOADING_RELATIONS)
            if loads and _REMOTE.match(value):
                self.found.append(f"<{tag} {name}={value}>")
        self.found += _REMOTE_IN_CSS.findall(values.get("style", ""))
        # Material fetches the renderer of these from a host when a page has one.
        if "mermaid" in values.get("class", "").split():
            self.found.append("a diagram of the class mermaid")


def _loaded_from_elsewhere(site: Path) -> Iterator[str]:
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            page = _Page()
            page.feed(path.read_text(encoding="utf-8"))
            yield from (f"{path.relative_to(site)}: {item}" for item in page.found)
            if not page.has_policy:
                yield f"{path.relative_to(site)}: it has no Content-Security-Policy"
        elif path.suffix == ".css":
            found = _REMOTE_IN_CSS.findall(path.read_text(encoding="utf-8"))
            yield from (f"{path.relative_to(site)}: {item}" for item in found)


def on_post_build(config: Any) -> None:
    """Look through the site that was built.

    Raises:
        RuntimeError: something is loaded from another host.
    """
    found = list(_loaded_from_elsewhere(Path(config.site_dir)))
    if found:
        raise RuntimeError("The site would load from other hosts:\n  " + "\n  ".join(found))
