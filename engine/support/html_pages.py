"""Parts of self-contained HTML pages: their template, and a policy that lets nothing else through."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def content_security_policy(style: str, script: str, *further: str) -> str:
    """Return the content security policy of a page with one inline style and one inline script.

    Args:
        style, script: the inline parts, which are let through by their hashes.
        further: directives for what else the page uses, such as "img-src data:".
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src 'sha256-{_sha256(style)}'",
            f"script-src 'sha256-{_sha256(script)}'",
            *further,
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


@cache
def page_template(package: str, name: str) -> Template:
    """Load a template from the folder `templates` of a package. Values are escaped, and must be defined."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
