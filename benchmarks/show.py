"""Rewrite what the pages show of the benchmarks, from ``benchmarks/results``.

    .venv/bin/python -m benchmarks.show
    .venv/bin/python -m benchmarks.show --since    # which code has changed since each results file was measured

Each section is the text between two markers, and is made by a function of its benchmark. A test compares the pages with
the results, so that neither changes without the other.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import promotion, scale, seeds
from benchmarks.datasets import chosen
from benchmarks.datasets import report as datasets
from benchmarks.edge import exporters, pruning, wider
from benchmarks.edge import report as edge
from benchmarks.harness import since
from benchmarks.harness.results import PAGES, RESULTS, ROOT, read
from benchmarks.hinton_mnist import paper
from benchmarks.methods import report as methods
from benchmarks.servers import report as servers
from benchmarks.throughput import report as throughput
from benchmarks.transfer import __main__ as transfer
from benchmarks.transfer import imagenet

GAIN, METHODS, SPEED = PAGES / "distillation.md", PAGES / "methods.md", PAGES / "speed.md"
FILES = PAGES / "files.md"
GATE = ROOT / "infra/docs/pages/how-to/gate.md"
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


def ages(folder: Path) -> str:
    """A table of all results files: the commit that was measured, and if its code has changed since."""
    lines = ["| results | measured at | the code since |", "| --- | --- | --- |"]
    for name in since.MEASURES:
        result = read(name, folder)
        age = "changed" if result.since else "the same"
        lines.append(f"| [`{name}.json`](results/{name}.json) | {result.measured_at} | {age} |")
    return "\n".join(lines)


SECTIONS = (
    Section(ROOT / "benchmarks/README.md", "results", ages),
    Section(ROOT / "README.md", "printed run", seeds.printed),
    Section(GAIN, "seeds", seeds.section),
    Section(GAIN, "datasets", datasets.section),
    Section(GAIN, "chosen", chosen.section),
    Section(ROOT / "README.md", "chosen in short", chosen.in_short),
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
    Section(GATE, "promotion", promotion.section),
    Section(SCALING, "measured", servers.section),
    Section(FINETUNE, "strategies", transfer.section),
    Section(FINETUNE, "imagenet", imagenet.section),
    Section(FINETUNE, "adaptation", transfer.adapted_section),
)


def rewrite(section: Section, folder: Path) -> None:
    """Replace a section by what the results in a folder say."""
    before, _, after = section.split()
    section.page.write_text(before + section.text(folder) + after, encoding="utf-8")


def print_since() -> None:
    """Print the parts of the code that have changed since each results file was measured."""
    for name in since.MEASURES:
        result = read(name, RESULTS)
        parts = since.changed(name, [result.at_latest or result.commit])
        print(f"{name:15} {result.measured_at:45} {', '.join(parts) or 'the same code'}")


def main() -> None:
    """Rewrite all sections, and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", action="store_true", help="print which code has changed, and rewrite nothing")
    if parser.parse_args().since:
        print_since()
        return
    for section in SECTIONS:
        rewrite(section, RESULTS)
        print(f"Written: {section.page.relative_to(ROOT)}, {section.name}")
    throughput.plot(read("throughput", RESULTS))
    transfer.draw()
    for picture in (throughput.PICTURE, transfer.PICTURE):
        print(f"Written: {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
