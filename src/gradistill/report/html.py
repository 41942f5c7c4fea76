"""Self-contained HTML pages, with a content security policy that allows nothing from outside."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, Template
from markupsafe import Markup

from gradistill.printing import printable
from gradistill.report.audit_tables import capital, counted
from gradistill.report.model_card import NO_VALUE, template_environment


@cache
def _environment() -> Environment:
    environment = template_environment(_shown, autoescape=True)
    environment.filters |= {"capital": capital, "counted": counted}
    return environment


def page_template(name: str) -> Template:
    return _environment().get_template(name)


@cache
def asset(name: str) -> str:
    """The text of a page's file, with line ends as an HTML parser reads them, so that its hash fits."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].replace("\r\n", "\n")


def policy(style: str, script: str | None = None) -> str:
    """A content security policy for exactly this script, if any, and this style sheet: no network, no style
    attributes."""
    scripts = () if script is None else (f"script-src '{_hash(script)}'",)
    styles = f"style-src '{_hash(style)}'"
    return "; ".join(("default-src 'none'", *scripts, styles, "base-uri 'none'", "form-action 'none'"))


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _shown(value: Any) -> Any:
    """A value as the template prints it: our markup as it is, and other text on one line without control characters."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return NO_VALUE
    return printable(" ".join(value.split())) if isinstance(value, str) else value
