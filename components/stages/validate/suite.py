"""The Great Expectations suite, as code; the only module that imports Great Expectations."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from reflux.components.core.artifacts import translate_os_error
from reflux.components.stages.validate.findings import ROWS_SHOWN, Finding, Severity
from reflux.components.stages.validate.report import front_page

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
    from great_expectations.expectations.expectation import Expectation

_BETWEEN, _MEMBER, _NULL = "ExpectColumnValuesToBeBetween", "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToBeNull"
_POINTS = 20  # either way, a recall is of little use; about 20 images know it better


@dataclass(frozen=True)
class Check:
    """One expectation, and the words for a row that fails it.

    Attributes:
        sentence: what is expected.
        expectation: the Great Expectations class, by name: importing it takes seconds.
        options: its arguments, ``column`` among them.
        row: what is wrong with a row, a format of its identity and its value.
        cost: what failing costs, a format of the share of rows that fail, in ``points``; or empty.
    """

    name: str
    severity: Severity
    sentence: str
    expectation: str
    options: dict[str, Any]
    row: str
    cost: str = ""

    def build(self) -> "Expectation":
        from great_expectations import expectations
        from great_expectations.expectations.metadata_types import FailureSeverity

        kind: type[Expectation] = getattr(expectations, self.expectation)
        return kind(severity=FailureSeverity(self.severity), description=self.sentence, **self.options)


@dataclass(frozen=True)
class Expectations:
    """What is expected of each row of a table.

    Attributes:
        rows: its rows; None if it could not be made.
        identity: the column that names its rows.
        checks: what is expected.
        note: why it could not be made, else empty.
    """

    rows: pd.DataFrame | None
    identity: str
    checks: list[Check]
    note: str = ""


def image_checks() -> list[Check]:
    """The expectations of every image."""
    return [
        Check(
            "no_image_in_two_splits",
            "critical",
            "No image is in two splits (by its content's hash).",
            _NULL,
            {"column": "same_image_in"},
            "{0} is also {1}",
        ),
        Check(
            "no_constant_images",
            "warning",
            "No image has one color only.",
            _BETWEEN,
            {"column": "pixel_std", "min_value": 0, "strict_min": True},
            "{0} has one color",
        ),
    ]


def label_checks(classes: Sequence[str]) -> list[Check]:
    """The expectations of labeled images."""
    return [
        Check(
            "known_labels",
            "critical",
            "Every labeled image has one of the known classes.",
            _MEMBER,
            {"column": "label_name", "value_set": list(classes)},
            "{0} has {1}",
        ),
        Check(
            "one_label_an_image",
            "critical",
            "No image has two labels (by its content's hash).",
            _NULL,
            {"column": "other_label_in"},
            "{0} is also {1}",
        ),
    ]


def group_checks() -> list[Check]:
    """The expectations of groups of images that belong together."""
    return [
        Check(
            "no_group_in_two_splits",
            "critical",
            "No group of images is in two splits.",
            _NULL,
            {"column": "splits"},
            "{0} is in {1}",
        )
    ]


def look_alike_checks(near_duplicate_bits: int) -> list[Check]:
    """The expectations of test images: what they look like."""
    return [
        Check(
            "no_test_image_looks_trained_on",
            "warning",
            f"No test image looks like one that is trained on (hashes within {near_duplicate_bits} bits of 256).",
            _NULL,
            {"column": "similar_image_in"},
            "{0} looks like {1}",
            "if these are copies, the test's accuracy is up to {points:.2g} points too high",
        )
    ]


def count_checks() -> list[Check]:
    """The expectations of each class in each labeled split."""
    return [
        Check(
            "every_class_in_each_split",
            "critical",
            "Every class has images in each of val, test and train, unless there is no labeled training image at all.",
            _BETWEEN,
            {"column": "images", "min_value": 1},
            "{0} has {1}",
        )
    ]


def recall_checks() -> list[Check]:
    """The expectations of what validation and test can tell of a class."""
    return [
        Check(
            "recalls_can_be_known",
            "warning",
            f"Val and test have enough images of every class to know its recall to ±{_POINTS} points (95 %).",
            _BETWEEN,
            {"column": "points", "max_value": _POINTS},
            "{0}: its recall is known to ±{1:.0f} points",
        )
    ]


def shift_checks(max_class_shift: float) -> list[Check]:
    """The expectations of the class balance, against the previous data version."""
    return [
        Check(
            "class_balance_kept",
            "warning",
            f"No class's share moved by more than {max_class_shift:g} since the previous data version.",
            _BETWEEN,
            {"column": "shift", "max_value": max_class_shift},
            "{0} moved by {1:.3f}",
        )
    ]


def file_checks() -> list[Check]:
    """The expectations of every file, quarantined ones included."""
    return [
        Check(
            "nothing_quarantined",
            "warning",
            "No file of the dataset is set aside as damaged.",
            _NULL,
            {"column": "reason"},
            "{1}",
        )
    ]


def run(tables: Mapping[str, Expectations], docs: Path, fingerprint: str) -> list[Finding]:
    """Validate the tables and write Data Docs of the data version into ``docs``, which is replaced if it exists.

    Args:
        tables: by the names of their pages.
        docs: the folder of the pages.
        fingerprint: of the data version.

    Returns:
        A finding for each check, in order.
    """
    building = docs.parent / f".{docs.name}-building"
    shutil.rmtree(building, ignore_errors=True)
    try:
        context = _context(building)
        findings = [finding for name, table in tables.items() for finding in _validate(context, name, table)]
        context.build_data_docs()
        # Animations for a tour of its pages, three megabytes per run.
        for animation in (building / "static" / "images").glob("*.gif"):
            animation.unlink()
        pages = {page.relative_to(building).parts[1]: page for page in building.glob("validations/**/*.html")}
        links = {name: quote(page.relative_to(building).as_posix()) for name, page in pages.items()}
        (building / "index.html").write_text(front_page(findings, links, fingerprint), encoding="utf-8")
        shutil.rmtree(docs, ignore_errors=True)
        building.rename(docs)
    except OSError as error:
        raise translate_os_error(error, docs) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return findings


def _context(docs: Path) -> "EphemeralDataContext":
    """A context that leaves no files behind and logs nothing."""
    # It logs tracebacks of its own; those that matter reach us as an error or as a missing page.
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    # Every ephemeral context makes a site in a temporary folder, which it never deletes.
    for name, default in dict(context.variables.data_docs_sites or {}).items():
        shutil.rmtree(default["store_backend"]["base_directory"], ignore_errors=True)
        context.delete_data_docs_site(name)
    site: Any = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        "show_how_to_buttons": False,
    }
    context.add_data_docs_site("reflux", site)
    return context


def _validate(context: "EphemeralDataContext", name: str, table: Expectations) -> list[Finding]:
    if table.rows is None:
        return [Finding(c.name, c.severity, c.sentence, name, None, 0, 0, [], table.note) for c in table.checks]
    import great_expectations as gx

    source = context.data_sources.add_pandas(name)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=name))
    for check in table.checks:
        suite.add_expectation(check.build())
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    results = definition.run(
        batch_parameters={"dataframe": table.rows},
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": [table.identity],
            "partial_unexpected_count": ROWS_SHOWN,
        },
    )
    outcomes = {config.description: r for r in results.results if (config := r.expectation_config)}
    return [_finding(check, name, table.identity, len(table.rows), outcomes[check.sentence]) for check in table.checks]


def _finding(check: Check, table: str, identity: str, checked: int, outcome: Any) -> Finding:
    details = outcome.result
    if "unexpected_count" not in details:
        raise RuntimeError(f"{check.name} could not be evaluated: {outcome.exception_info}")
    column, unexpected = check.options["column"], int(details["unexpected_count"])
    rows = [check.row.format(row[identity], row[column]) for row in details.get("partial_unexpected_index_list", [])]
    return Finding(
        name=check.name,
        severity=check.severity,
        expectation=check.sentence,
        table=table,
        success=bool(outcome.success),
        checked=checked,
        unexpected=unexpected,
        rows=rows,
        cost=check.cost.format(points=100 * unexpected / checked) if unexpected else "",
    )
