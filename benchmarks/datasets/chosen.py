"""On which images each constant of the planner's rules was chosen, as the comments above them say.

So was how many standard errors of the best a kept checkpoint may be below it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.results import ROOT

PAGE = "infra/docs/pages/results/distillation.md#which-images-chose-the-rules"
FILES = ("advice/plan/rules.py", "advice/plan/lesson.py", "advice/plan/teacher.py", "core/training/state.py")
RULES = tuple(ROOT / "components" / name for name in FILES)
SPLITS = ("test images of ", "validation images of ", "no images", "not recorded")
_SAID = re.compile(r"# Chosen on: (?P<on>[^;\n]+)(?:; tried on: (?P<tried>[^\n]+))?\n")
_NAMED = re.compile(r"^([A-Z][A-Z_, ]*[A-Z])(?:: [^=]+)? = ", re.MULTILINE)


@dataclass(frozen=True)
class Chosen:
    """Constants that were chosen together.

    Attributes:
        names: of the constants.
        on: the images that they were chosen on.
        tried: those that they were tried on then; empty if on none.
    """

    names: tuple[str, ...]
    on: str
    tried: str

    @property
    def on_test_images(self) -> bool:
        """True if test images had a part in the choice."""
        return "test images of" in self.on


def chosen(files: Sequence[Path] = RULES) -> list[Chosen]:
    """Read the constants of all rules, with the comment above each.

    Raises:
        ValueError: a constant lacks it.
    """
    return [each for file in files for each in _chosen_in(file)]


def _chosen_in(file: Path) -> Iterator[Chosen]:
    for block in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
        said = list(_SAID.finditer(block))
        for named in _NAMED.finditer(block):
            above = [each for each in said if each.end() <= named.start()]
            if not above or not above[-1]["on"].startswith(SPLITS):
                raise ValueError(f'{file.name} lacks "# Chosen on: …" above {named[1]}.')
            yield Chosen(tuple(named[1].split(", ")), above[-1]["on"], above[-1]["tried"] or "")


def section(_folder: Path) -> str:
    """A table of the constants, those chosen on test images first, as Markdown."""
    lines = ["| constants | chosen on | tried then on |", "| --- | --- | --- |"]
    for each in sorted(chosen(), key=lambda each: not each.on_test_images):
        lines.append(f"| {', '.join(f'`{name}`' for name in each.names)} | {each.on} | {each.tried} |")
    return "\n".join(lines)


def in_short(_folder: Path) -> str:
    """How many of the constants were chosen on test images, in a sentence."""
    every = [(name, each) for each in chosen() for name in each.names]
    on_test = sum(each.on_test_images for _, each in every)
    numbers = f"Of the {len(every)} constants that decide what is planned and kept, {on_test} were"
    return f"{numbers} [chosen on test images]({PAGE}): this is no independent test."
