"""The plan of ``reflux data add``, as a table for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from reflux.components.core.contract import LABELED_SPLITS
from reflux.flows.report.display import duration

if TYPE_CHECKING:
    from reflux.components.advice.plan.choice import Choice
    from reflux.components.advice.plan.profile import Profile

_HEADS = {
    "ingest.": "images",
    "pretrain.": "teacher",
    "finetune.": "teacher",
    "student.augment.": "views",
    "label.": "views",
    "student.": "student",
    "distill.": "method",
    "compress.": "student",
    "registry.gates.": "gates",
}


def plan_table(profile: "Profile", chosen: "Sequence[Choice]", seconds: Mapping[str, float], minutes: float) -> Table:
    """What the data is, every choice with its reason, and how long each stage will take.

    Args:
        profile: of the data.
        chosen: the choices; those without a reason are not shown.
        seconds: of each stage.
        minutes: that were allowed.
    """
    from reflux.components.advice.plan.times import run_seconds

    groups: dict[str, list[tuple[str, str]]] = {"data": _data(profile)}
    for choice in chosen:
        head, name = _head(choice.param)
        if choice.reason and head:
            groups.setdefault(head, []).append((f"{name} {_words(choice.value)}", choice.reason))
    parts = ", ".join(f"{stage} {duration(taken)}" for stage, taken in seconds.items())
    groups["time"] = [(f"{duration(run_seconds(seconds))} of {minutes:g} min", parts)]
    table = Table("", "", "because", box=None, pad_edge=False)
    for head in ("data", *_HEADS.values(), "time"):
        for number, row in enumerate(groups.pop(head, [])):
            table.add_row("" if number else head, *row)
    return table


def _head(param: str) -> tuple[str, str]:
    """What a param is about, and its name there; nothing where it is the same as another."""
    if param.startswith(("finetune.augment.", "finetune.balance")):
        return "", ""  # the student's
    for prefix, head in _HEADS.items():
        if param.startswith(prefix):
            return head, param.removeprefix(prefix)
    return "images", param


def _data(profile: "Profile") -> list[tuple[str, str]]:
    about = "" if profile.exact else "about "
    counts = ", ".join(f"{about}{profile.counts[split]:,} {split}" for split in LABELED_SPLITS)
    rows = [(f"{len(profile.classes):,} classes", f"{counts}, {profile.unlabeled:,} unlabeled images")]
    low, middle, high = profile.sides
    size = f"{middle} pixels" if low == high else f"{low} to {high} pixels"
    kind = "color" if profile.color else "gray"
    clear = f", {profile.transparent:.0%} can be transparent" if profile.transparent else ""
    rows.append((size, f"the shorter side; {kind}{clear}"))
    if profile.imbalance >= 2:
        rows.append((f"1 : {profile.imbalance:.1f}", "training images of the smallest and of the largest class"))
    if profile.repeats:
        rows.append((f"{profile.repeats:,} repeats", "files that are equal to another one"))
    rows += [("splits differ", shift) for shift in profile.shifts]
    return rows


def _words(value: object) -> str:
    """A value without braces."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list):
        return " + ".join(map(_words, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
