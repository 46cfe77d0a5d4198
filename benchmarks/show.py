"""Rewrite what the pages show of the benchmarks, from ``benchmarks/results``.

    .venv/bin/python -m benchmarks.show

Each section is the text between two markers, and is made by a function of its benchmark. A test compares the pages with
the results, so that neither changes without the other.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import scale, seeds
from benchmarks.datasets import report as datasets
from benchmarks.edge import exporters, pruning, wider
from benchmarks.edge import report as edge
from benchmarks.harness.results import PAGES, RESULTS, ROOT, read
from benchmarks.hinton_mnist import paper
from benchmarks.methods import report as methods
from benchmarks.servers import report as servers
from benchmarks.throughput import report as throughput
from benchmarks.transfer import __main__ as transfer
from benchmarks.transfer import imagenet

GAIN, METHODS, SPEED = PAGES / "distillation.md", PAGES / "methods.md", PAGES / "speed.md"
FILES = PAGES / "files.md"
SCALING = ROOT / "infra/SCALING.md"
FINETUNE = transfer.PAGE / "README.md"


@dataclass(frozen=True)
class Section:
    """A part of a page that is made from results.

    Attributes:
        page: the file.
        name: in its markers.
        text: makes it, as Markdown, from a folder of results.
    """

    page: Path
    name: str
    text: Callable[[Path], str]

    def split(self) -> tuple[str, str, str]:
        """The page up to the section, the section, and the rest.

        Raises:
            SystemExit: the page has no such section.
        """
        begin, end = f"<!-- {self.name}: python -m benchmarks.show -->\n", f"\n<!-- /{self.name} -->"
        before, found, rest = self.page.read_text(encoding="utf-8").partition(begin)
        text, ended, after = rest.partition(end)
        if not (found and ended):
            sys.exit(f"Error: {self.page.name} lacks {begin.strip()} or {end.strip()}.")
        return before + begin, text, end + after


SECTIONS = (
    Section(GAIN, "seeds", seeds.section),
    Section(GAIN, "datasets", datasets.section),
    Section(ROOT / "README.md", "datasets in short", datasets.in_short),
    Section(SPEED, "how fast", throughput.section),
    Section(SPEED, "scale", scale.section),
    Section(FILES, "edge", edge.section),
    Section(FILES, "exporters", exporters.section),
    Section(FILES, "pruning", pruning.section),
    Section(FILES, "wider", wider.section),
    Section(METHODS, "methods", methods.section),
    Section(METHODS, "few labels", partial(methods.section, name="few_labels")),
    Section(METHODS, "hinton", paper.section),
    Section(SCALING, "measured", servers.section),
    Section(FINETUNE, "strategies", transfer.section),
    Section(FINETUNE, "imagenet", imagenet.section),
    Section(FINETUNE, "adaptation", transfer.adapted_section),
)


def rewrite(section: Section, folder: Path) -> None:
    """Replace a section by what the results in a folder say."""
    before, _, after = section.split()
    section.page.write_text(before + section.text(folder) + after, encoding="utf-8")


def main() -> None:
    """Rewrite all sections, and the pictures."""
    for section in SECTIONS:
        rewrite(section, RESULTS)
        print(f"Written: {section.page.relative_to(ROOT)}, {section.name}")
    throughput.plot(read("throughput", RESULTS))
    transfer.draw()
    for picture in (throughput.PICTURE, transfer.PICTURE):
        print(f"Written: {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
