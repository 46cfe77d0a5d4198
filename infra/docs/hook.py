"""MkDocs' hook: pages from next to the code, links that fit the site, and tables that are made from the code."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx import superfences

from infra.docs import links, reference

ROOT = Path(__file__).parents[2]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw mermaid's diagrams; as YAML this needs a tag that only MkDocs reads."""
    fence = {"name": "mermaid", "class": "mermaid", "format": superfences.fence_code_format}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are elsewhere in the repository."""
    for uri in _leaves(config.nav):
        path = ROOT / links.source(uri, ())
        if files.get_file_from_path(uri) is None and path.is_file():
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for picture in sorted((ROOT / links.PICTURES).iterdir()):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the generated blocks, and rewrite the links."""
    uris = {file.src_uri for file in files.documentation_pages()}
    file = PurePosixPath(Path(page.file.abs_src_path or "").relative_to(ROOT))
    text = links.rewritten(markdown, file, page.file.src_uri, uris, config.repo_url or "")
    return reference.filled(text, ROOT)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out Sphinx's roles, which docstrings put before a name."""
    return reference.without_roles(html)


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif nav:
        for child in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(child)
