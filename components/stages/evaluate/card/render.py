"""The model card: a text in Markdown, and the same text as one self-contained page."""

import base64
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt

_FOLDER = Path(__file__).parent
_ABSENT = "-"
_MARKDOWN_SYNTAX = re.compile(r"([\\`*_{}\[\]<>#|~&])")


class _Ready(str):
    """Text that is Markdown already and must not be escaped again."""

    __slots__ = ()


def markdown(facts: Mapping[str, Any]) -> str:
    """The card as Markdown; its figures are linked relative to it, under ``figures/``.

    Every value that comes from data or params is escaped, so that a class named ``a|b`` or ``<b>`` is shown as that.
    """
    return _markdown_environment().get_template("card.md.j2").render(facts)


def page(text: str, title: str, tiles: Sequence[Mapping[str, str]], folder: Path) -> str:
    """The card as one HTML page without scripts or requests: style and figures are inside.

    At the top are key figures, ``tiles``, each with ``label``, ``value`` and ``note``. The figures' links are relative
    to ``folder``.
    """
    # Raw HTML is off: nothing in the text can become an element of its own.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(text)
    heading = next(index for index, token in enumerate(tokens) if token.type == "heading_close")
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.attrSet("src", _inlined(folder / str(child.attrGet("src"))))
    body = parser.renderer.render(tokens[heading + 1 :], parser.options, {})
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html.j2").render(title=title, tiles=tiles, body=body)


def points(value: float) -> str:
    """A difference of shares in points: ``+2.41``."""
    return f"{100 * value:+.2f}"


def percent(value: float | None) -> str:
    """A share in percent: ``87.12%``."""
    return _ABSENT if value is None or math.isnan(value) else f"{100 * value:.2f}%"


def kilobytes(size: int) -> str:
    """Bytes in KB of 1,024 bytes."""
    return f"{size / 1024:,.1f}"


def milliseconds(value: float) -> str:
    """A latency to three digits: a small student takes a twentieth of a millisecond."""
    return f"{value:.3g} ms"


def _markdown_environment() -> Environment:
    # HTML's rules would be the wrong ones for Markdown: _escaped takes their place for every value.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(_FOLDER), finalize=_escaped, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {
        "code": _code,
        "source": lambda module: _Ready(inspect.getsource(module)),
        "fenced": lambda value: _Ready(" ".join(str(value).split())),
        "pct": percent,
        "points": points,
        "points_of": lambda value: f"{100 * value:.1f}",
        "kb": kilobytes,
        "fixed": lambda value, digits: _ABSENT if value is None else f"{value:.{digits}f}",
        "whole": lambda value: _ABSENT if value is None else f"{value:,}",
        "ms": lambda value: _ABSENT if value is None else milliseconds(value),
        "interval": lambda bounds: f"{100 * bounds[0]:.2f} to {percent(bounds[1])}",
    }
    return environment


def _escaped(value: Any) -> str:
    if isinstance(value, _Ready):
        return value
    return _MARKDOWN_SYNTAX.sub(r"\\\1", " ".join(str(value).split()))


def _code(value: Any) -> _Ready:
    text = " ".join(str(value).replace("|", "¦").split())
    fence = "``" if "`" in text else "`"
    pad = " " if "`" in text else ""
    return _Ready(f"{fence}{pad}{text}{pad}{fence}")


def _inlined(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
