"""The page: a template, its style and scripts, the plotting library and the data, all in one file without a network.

The data is JSON in a script element that is never run; the page's scripts write text by textContent alone, and its
Content-Security-Policy names the two scripts by their hashes: nothing else can run, and nothing can be fetched.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

HERE = files("mtlbench.report")

SCRIPTS = ("data.js", "dom.js", "dialog.js", "table.js", "states.js", "charts.js", "figures.js", "main.js")
"""Of the page, in the order in which they are run, as one script."""

LICENCES = ("NOTICE", "LICENSE-zrender", "LICENSE-d3")
"""Of the plotting library and of what is in it; the Apache licence itself is named in its first lines."""

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""What could end a script element, or a line of one; within JSON these stand in strings only."""


def page(data: Mapping[str, Any]) -> str:
    """The page of a report's structure (mtlbench.aggregation.report): the same text for the same data."""
    library = _read("echarts/echarts.min.js")
    script = "(() => {\n" + "\n".join(_read(name) for name in SCRIPTS) + "})();\n"
    assert "</script" not in (library + script).lower(), "a script must not hold the text that ends its element"
    parts = {
        "title": html.escape(str(data["name"])),
        "policy": " ".join(f"'sha256-{_digest(text)}'" for text in (library, script)),
        "style": _read("style.css"),
        "data": embedded(data),
        "library": library,
        "script": script,
        "licences": html.escape("\n\n".join(_read(f"echarts/{name}").strip() for name in LICENCES)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _read("template.html"))


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that may stand in a script element. Raises ValueError for a number that is not finite."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _read(name: str) -> str:
    return HERE.joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
