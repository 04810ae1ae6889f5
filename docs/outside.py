"""Fits pages that a code host shows as they are into the site; a hook that mkdocs.yml names.

In: pages of docs/, and README.md and others beside that folder, with relative links to each other.
Out: the same pages with links that hold on the site, which also gets what lies outside docs/.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What docs/ links to outside itself, and where it lies on the site.
OUTSIDE = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE.txt",
    "runs/tiny.sh": "runs/tiny.sh",
    "runs/one_node.sh": "runs/one_node.sh",
    "runs/paper.sh": "runs/paper.sh",
    "examples/your_photos.ipynb": "examples/your_photos.ipynb",
}
_SOURCES = {there: here for here, there in OUTSIDE.items()}
_LINK = re.compile(r"(?<=\]\()[^)#\s:]+(?=[)#])")


def on_config(config: Any) -> Any:
    """Shows <TAB> and <name> in docstrings as they are written; no page here contains HTML."""
    from markdown.extensions import Extension

    class NoHTML(Extension):
        def extendMarkdown(self, md: Any) -> None:
            md.preprocessors.deregister("html_block")
            md.inlinePatterns.deregister("html")

    config.markdown_extensions.append(NoHTML())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds what lies outside docs/."""
    from mkdocs.structure.files import File

    for here, there in OUTSIDE.items():
        files.append(File.generated(config, there, abs_src_path=str(ROOT / here)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns a page with the links of the site; the strict build complains of what has none."""
    return for_the_site(markdown, page.file.src_uri)


def for_the_site(markdown: str, place: str) -> str:
    """Returns a page with its relative links as the site needs them.

    Args:
        markdown: the page as a code host shows it.
        place: where it lies on the site, such as `labels.md`.
    """
    here = posixpath.dirname(_SOURCES.get(place, f"docs/{place}"))

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[0]))
        there = OUTSIDE.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(there, posixpath.dirname(place) or ".")

    return _LINK.sub(moved, markdown)
