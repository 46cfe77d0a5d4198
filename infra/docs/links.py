"""Where a link of a page leads on the site, in the repository, or nowhere."""

import os
import re
from collections.abc import Callable, Collection
from pathlib import PurePosixPath

PAGES = PurePosixPath("infra/docs/pages")
PICTURES = PurePosixPath(".github/pictures")
GITHUB = ("SECURITY.md",)  # pages in .github, a folder that a site would leave out

_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]"
    r"\((?!https?:|mailto:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)


def source(uri: str, own: Collection[str]) -> PurePosixPath:
    """The file of a page in the repository.

    Args:
        uri: of the page in the nav.
        own: the uris of the pages that are below ``pages/``.
    """
    if uri in GITHUB:
        return PurePosixPath(".github", uri)
    return PAGES / uri if uri in own else PurePosixPath(uri)


def target(page: PurePosixPath, link: str) -> PurePosixPath:
    """The file or folder that a page's relative link leads to, from the repository's root."""
    return PurePosixPath(os.path.normpath(page.parent / link))


def rewritten(text: str, page: PurePosixPath, uri: str, uris: Collection[str], repository: str) -> str:
    """Make the links of a page lead where they should on the site.

    Args:
        text: the page, as Markdown.
        page: its file, from the repository's root.
        uri: of the page on the site.
        uris: all pages of the site.
        repository: address of the repository, where links to other files lead; empty where it is not known, and such
            links become plain text.
    """

    def one(match: re.Match[str]) -> str:
        file, anchor = target(page, match["path"]), match["anchor"] or ""
        place = on_site(file, uris)
        if place is not None:
            link = os.path.relpath(place, PurePosixPath(uri).parent)
            return f"{match['image']}[{match['text']}]({link}{anchor})"
        if repository:
            return f"[{match['text']}]({repository.rstrip('/')}/blob/main/{file}{anchor})"
        return match["text"]

    return outside_code(text, lambda part: _LINK.sub(one, part))


def on_site(file: PurePosixPath, uris: Collection[str]) -> str | None:
    """The uri of a file of the repository on the site, if it is there."""
    if file.is_relative_to(PICTURES):
        return f"pictures/{file.name}"
    own = [str(file.relative_to(PAGES))] if file.is_relative_to(PAGES) else []
    return next((uri for uri in uris if source(uri, own) in (file, file / "README.md")), None)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change what is no code of a Markdown text; code in a link's text is part of the link."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    changed = change(_CODE.sub(keep, text))
    return re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], changed)


def links(text: str) -> list[tuple[str, str]]:
    """The relative links of a Markdown text: path and anchor, which may be empty."""
    found: list[tuple[str, str]] = []

    def note(part: str) -> str:
        found.extend((match["path"], (match["anchor"] or "").removeprefix("#")) for match in _LINK.finditer(part))
        return part

    outside_code(text, note)
    return found
