"""One HTML file from a payload: modules and styles inlined, and nothing that could load anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

MODULES = (
    *("tensor", "windows", "terms", "convolution", "activations", "pools", "normalization", "merges", "layers"),
    *("losses", "optimizers", "network", "numbers", "formulas", "explain", "palette", "maps", "column"),
    *(
        "microscope",
        "mistakes",
        "quiz",
        "lessons",
        "quiz-panel",
        "lab",
        "worksheet",
        "steps",
        "keyboard",
        "bar",
        "app",
        "main",
    ),
)
"""The page's modules, each after those that it imports."""

_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*(/\*\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^\s+", re.MULTILINE)
_BREAK = re.compile(r"(?<=[,;({[])\n")
_CAST = re.compile(r"/\*\* @type \{[^*]*\} \*/ ?")
_EXPORT = re.compile(r"^export (?=(async )?(class|const|function|let) )", re.MULTILINE)


def page(payload: Mapping[str, Any]) -> str:
    """Return the page that shows what `payload.page_payload` returned.

    A Content-Security-Policy lets it run its one script and use its one style sheet, and load nothing.
    """
    style, script = _INDENT.sub("", _read("page.css")), "\n".join(inlined(_read(f"{name}.js")) for name in MODULES)
    parts = {
        "POLICY": f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none'",
        "TITLE": escape(shortened(str(payload["name"]))),
        "STYLE": style,
        "SCRIPT": script,
        # Within a script element only `</` and `<!--` mean anything to HTML; JSON may write any character as \\u….
        "DATA": json.dumps(payload, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def inlined(module: str) -> str:
    """Return a module as a part of one script: without imports, exports, comments and what only sets it out."""
    for pattern in (_IMPORT, _COMMENT, _CAST, _EXPORT, _INDENT, _BREAK):
        module = pattern.sub("", module)
    return module.strip()


def shortened(name: str) -> str:
    return name if len(name) <= 80 else name[:79] + "…"


def _read(name: str) -> str:
    return (files("cnnbp_cli.tracing") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
