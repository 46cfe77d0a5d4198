"""The Great Expectations suite, as code; the only module that imports Great Expectations."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from components.core.artifacts import translate_os_error
from components.validate.findings import ROWS_SHOWN, Finding, Severity
from components.validate.report import front_page

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
    from great_expectations.expectations.expectation import Expectation

_BETWEEN, _MEMBER, _NULL = "ExpectColumnValuesToBeBetween", "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToBeNull"
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I", "I;16", "I;16B")


@dataclass(frozen=True)
class Check:
    """One expectation, and the words for a row that fails it.

    Attributes:
        sentence: what is expected.
        expectation: the Great Expectations class, by name: importing it takes seconds.
        options: its arguments, ``column`` among them.
        row: what is wrong with a row, a format of its identity and its value.
    """

    name: str
    severity: Severity
    sentence: str
    expectation: str
    options: dict[str, Any]
    row: str

    def build(self) -> "Expectation":
        from great_expectations import expectations
        from great_expectations.expectations.metadata_types import FailureSeverity

        kind: type[Expectation] = getattr(expectations, self.expectation)
        return kind(severity=FailureSeverity(self.severity), description=self.sentence, **self.options)


@dataclass(frozen=True)
class Table:
    """A table and what is expected of it.

    Attributes:
        name: of its pages and folders.
        rows: its rows; None if it could not be made.
        identity: the column that names its rows.
        checks: what is expected.
        note: why it could not be made, else empty.
    """

    name: str
    rows: pd.DataFrame | None
    identity: str
    checks: list[Check]
    note: str = ""


def image_checks(min_size_px: int, max_size_px: int, near_duplicate_bits: int, max_constant: float) -> list[Check]:
    """The expectations of every image, see :func:`components.validate.validate.validate`."""
    size = {"min_value": min_size_px, "max_value": max_size_px}
    more_than_one_color: dict[str, Any] = {"column": "pixel_std", "min_value": 0, "strict_min": True}
    one_color = "{0} has one color"
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
            "no_look_alike_in_two_splits",
            "warning",
            f"No image has a look-alike in another split (perceptual hashes within {near_duplicate_bits} bits of 256).",
            _NULL,
            {"column": "similar_image_in"},
            "{0} looks like {1}",
        ),
        Check(
            "width_in_range",
            "critical",
            f"Every image is {min_size_px} to {max_size_px} pixels wide.",
            _BETWEEN,
            {"column": "width", **size},
            "{0} is {1} pixels wide",
        ),
        Check(
            "height_in_range",
            "critical",
            f"Every image is {min_size_px} to {max_size_px} pixels high.",
            _BETWEEN,
            {"column": "height", **size},
            "{0} is {1} pixels high",
        ),
        Check(
            "known_modes",
            "critical",
            f"Every image's pixel format is one of {', '.join(MODES)}.",
            _MEMBER,
            {"column": "mode", "value_set": list(MODES)},
            "{0} has mode {1}",
        ),
        Check(
            "few_constant_images",
            "critical",
            f"At most {max_constant:.1%} of the images have one color only.",
            _BETWEEN,
            more_than_one_color | {"mostly": 1 - max_constant},
            one_color,
        ),
        Check(
            "no_constant_images", "warning", "No image has one color only.", _BETWEEN, more_than_one_color, one_color
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


def count_checks(min_per_class: int) -> list[Check]:
    """The expectations of each class in each labeled split."""
    return [
        Check(
            "enough_images_a_class",
            "critical",
            f"Every class has at least {min_per_class} images in each of train, val and test.",
            _BETWEEN,
            {"column": "images", "min_value": min_per_class},
            "{0} has {1}",
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
            "Every file of the dataset is readable.",
            _NULL,
            {"column": "reason"},
            "{1}",
        )
    ]


def run(tables: Sequence[Table], docs: Path, fingerprint: str) -> list[Finding]:
    """Validate the tables and write Data Docs of the data version into ``docs``, which is replaced if it exists.

    Returns:
        A finding for each check, in order.
    """
    building = docs.parent / f".{docs.name}-building"
    shutil.rmtree(building, ignore_errors=True)
    try:
        context = _context(building)
        findings = [finding for table in tables for finding in _validate(context, table)]
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


def _validate(context: "EphemeralDataContext", table: Table) -> list[Finding]:
    if table.rows is None:
        return [Finding(c.name, c.severity, c.sentence, table.name, None, 0, 0, [], table.note) for c in table.checks]
    import great_expectations as gx

    source = context.data_sources.add_pandas(table.name)
    batch = source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=table.name))
    for check in table.checks:
        suite.add_expectation(check.build())
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=table.name, data=batch, suite=suite))
    results = definition.run(
        batch_parameters={"dataframe": table.rows},
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": [table.identity],
            "partial_unexpected_count": ROWS_SHOWN,
        },
    )
    outcomes = {config.description: r for r in results.results if (config := r.expectation_config)}
    return [_finding(check, table, len(table.rows), outcomes[check.sentence]) for check in table.checks]


def _finding(check: Check, table: Table, checked: int, outcome: Any) -> Finding:
    details = outcome.result
    if "unexpected_count" not in details:
        raise RuntimeError(f"{check.name} could not be evaluated: {outcome.exception_info}")
    column = check.options["column"]
    rows = [
        check.row.format(row[table.identity], row[column]) for row in details.get("partial_unexpected_index_list", [])
    ]
    return Finding(
        name=check.name,
        severity=check.severity,
        expectation=check.sentence,
        table=table.name,
        success=bool(outcome.success),
        checked=checked,
        unexpected=int(details["unexpected_count"]),
        rows=rows,
    )
