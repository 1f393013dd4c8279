"""Reports as one HTML file that needs nothing beside it: no script, no style sheet, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.metrics import four_digits

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd }
th { text-align: left; color: #666; font-weight: 600 }
td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } .warning { background: #fff3cd; border-left: 4px solid #d1911f; padding: .5rem 1rem }
"""


class Page:
    """A report under construction.

    Args:
        title: Title at the top.

    Example:
        page = Page("Digits")
        page.table(["split", "samples"], [["train", 1221]])
        page.write(Path("report.html"))
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def warning(self, text: str) -> None:
        """Add a paragraph that is not to be missed."""
        self._parts.append(f'<p class="warning">{escape(text)}</p>')

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add rows of texts and numbers."""
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def image(self, path: Path, alternative: str) -> None:
        """Put a PNG file into the page."""
        data = base64.b64encode(path.read_bytes()).decode()
        self._parts.append(f'<p><img alt="{escape(alternative)}" src="data:image/png;base64,{data}"></p>')

    def write(self, path: Path) -> Path:
        """Write the file, whole or not at all."""
        title = escape(self._title)
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(self._parts)}</body></html>\n"
        )
        return write_text(path, page)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{escape(str(value))}</td>"
    return f'<td class="number">{f"{value:,}" if isinstance(value, int) else four_digits(value)}</td>'
