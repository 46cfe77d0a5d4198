"""Boards: saved views of MLflow's runs page, as typed objects that can't describe a page which breaks.

MLflow keeps a saved view as an experiment tag; its format is not documented. It was read in the page that MLflow 3.17
ships and is tested in a browser. A scatter plot without an axis blanks that page, a chart without a key or a view
without sections is dropped in silence, and a tag has a limit: none of these can be made here.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TAG = "mlflow.sharedViewState."
LIMIT = 20_000  # characters of an experiment tag's value, kept by the server
_OURS = {"deleted": False, "isGenerated": False}

Key = Annotated[str, Field(min_length=1, max_length=250)]
Keys = Annotated[tuple[Key, ...], Field(min_length=1)]


class TooLarge(ValueError):
    """A board whose description is longer than an experiment tag may be."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chart(_Part, ABC):
    """A card of a section."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The card as MLflow's page reads it."""

    def metrics_shown(self) -> frozenset[str]:
        """The metrics that the card shows."""
        return frozenset()

    def drawn(self) -> frozenset[str]:
        """The metrics and pictures for which MLflow adds no chart of its own."""
        return frozenset()


class Line(Chart):
    """Metrics by step."""

    metrics: Keys
    scale: Literal["linear", "log"] = "linear"

    def facts(self) -> dict[str, Any]:
        axes = {"xAxisKey": "step", "useGlobalXaxisKey": False, "xAxisScaleType": "linear", "scaleType": self.scale}
        smooth = {"lineSmoothness": 0, "useGlobalLineSmoothing": False, "range": {}, "displayPoints": True}
        keys = {"metricKey": self.metrics[0], "selectedMetricKeys": list(self.metrics)}
        return {"type": "LINE", **keys, **axes, **smooth}

    def metrics_shown(self) -> frozenset[str]:
        return frozenset(self.metrics)

    def drawn(self) -> frozenset[str]:
        return frozenset(self.metrics[:1])


class Bar(Chart):
    """The latest value of a metric, one bar per run."""

    metric: Key

    def facts(self) -> dict[str, Any]:
        return {"type": "BAR", "metricKey": self.metric}

    def metrics_shown(self) -> frozenset[str]:
        return frozenset({self.metric})

    def drawn(self) -> frozenset[str]:
        return frozenset({self.metric})


class Scatter(Chart):
    """One metric against another, one point per run."""

    x: Key
    y: Key

    def facts(self) -> dict[str, Any]:
        axes = {"xaxis": {"key": self.x, "type": "METRIC"}, "yaxis": {"key": self.y, "type": "METRIC"}}
        return {"type": "SCATTER", **axes}

    def metrics_shown(self) -> frozenset[str]:
        return frozenset({self.x, self.y})


class Parallel(Chart):
    """Parallel coordinates: one line per run through its params and metrics."""

    params: Keys
    metrics: Keys

    def facts(self) -> dict[str, Any]:
        chosen = {"selectedParams": list(self.params), "selectedMetrics": list(self.metrics)}
        return {"type": "PARALLEL", **chosen, "showAllRuns": True}


class Images(Chart):
    """Logged images, by run and step."""

    keys: Keys

    def facts(self) -> dict[str, Any]:
        return {"type": "IMAGE", "imageKeys": list(self.keys), "step": 0, "showRunParams": False}

    def drawn(self) -> frozenset[str]:
        return frozenset(self.keys)


class Difference(Chart):
    """A table of the metrics and params that differ between runs."""

    def facts(self) -> dict[str, Any]:
        options = {"showChangeFromBaseline": True, "showDifferencesOnly": True, "baselineColumnUuid": ""}
        groups = ["Model metrics", "Parameters"]
        return {"type": "DIFFERENCE", "compareGroups": groups, "chartName": "Difference", **options}


class Section(_Part):
    """Charts under a heading, which must be short and say what they show: MLflow titles a chart by its keys."""

    name: Annotated[str, Field(min_length=1, max_length=58)]
    charts: Annotated[tuple[Chart, ...], Field(min_length=1)]
    columns: Annotated[int, Field(ge=1, le=5)] = 3
    height: Annotated[int, Field(ge=150, le=1000)] = 340


class Board(_Part):
    """One page for one question.

    Attributes:
        slug: its identity, which links carry.
        name: in MLflow's menu of views.
        shows: what it shows and for whom, a sentence.
        runs: MLflow's filter for its runs.
        sections: from top to bottom.
        columns: of the table next to the charts: ``metrics.`x```, ``params.`x```, ``tags.`x```, ``attributes.`x```.
        order_by: the column that its runs are sorted by, largest first.
        by: a tag that groups its runs. MLflow shows no pictures of a group whose metrics are joined.
        joined: the metrics of a group join to one line by step, their mean; else each run has its own.
        newest: how many retrains it shows, the latest ones; 0 for all.
        may_lack: metrics that not every machine, dataset or policy has.
    """

    slug: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=60)]
    name: Annotated[str, Field(min_length=1, max_length=60)]
    shows: Annotated[str, Field(min_length=1)]
    runs: Annotated[str, Field(min_length=1)]
    sections: Annotated[tuple[Section, ...], Field(min_length=1)]
    columns: tuple[Key, ...] = ()
    order_by: Key = "attributes.start_time"
    by: Key | None = None
    joined: bool = True
    newest: Annotated[int, Field(ge=0)] = 0
    may_lack: tuple[Key, ...] = ()

    def metrics(self) -> frozenset[str]:
        """Every metric that one of its charts shows."""
        return frozenset().union(*(chart.metrics_shown() for section in self.sections for chart in section.charts))

    def digest(self) -> str:
        """A hash of the declaration: boards that are declared alike have the same."""
        return hashlib.sha256(json.dumps(self._state((), (), 0), sort_keys=True).encode()).hexdigest()[:16]

    def view(self, version: int, metrics: Collection[str], pictures: Collection[str], since_ms: int, at_ms: int) -> str:
        """The value of the experiment tag :data:`TAG` + slug.

        Args:
            version: of the declaration, part of the name.
            metrics: of its runs. MLflow adds a chart for each that has none, unless the view lists that chart as
                deleted.
            pictures: likewise, the keys of logged images.
            since_ms: when the first of the ``newest`` retrains began.
            at_ms: when it was written.

        Raises:
            TooLarge: the description is longer than a tag may be.
        """
        state = json.dumps(self._state(metrics, pictures, since_ms), separators=(",", ":"))
        view = {"name": f"{self.name} v{version}", "createdAt": at_ms, "updatedAt": at_ms, "state": state}
        value = json.dumps(view, separators=(",", ":"))
        if len(value) > LIMIT:
            raise TooLarge(f"the board {self.name} takes {len(value):,} characters, and MLflow keeps {LIMIT:,}")
        return value

    def link(self, experiment_id: str) -> str:
        """Its address within MLflow's page. A reload of a longer one, as the page makes it, loses the charts."""
        query = f"viewStateShareKey={self.slug}&compareRunsMode=CHART&workflowType=machine_learning"
        return f"#/experiments/{experiment_id}/runs?{query}"

    def _state(self, metrics: Collection[str], pictures: Collection[str], since_ms: int) -> dict[str, Any]:
        recent = f" AND attributes.start_time >= {since_ms}" if self.newest and since_ms else ""
        drawn = frozenset().union(*(chart.drawn() for section in self.sections for chart in section.charts))
        charts = [card for place, section in enumerate(self.sections) for card in _cards(section, place)]
        charts += [
            {"uuid": f"m{number}", "type": "BAR", "metricKey": key, "deleted": True}
            for number, key in enumerate(sorted(set(metrics) - drawn))
        ]
        charts += [
            {"uuid": f"p{number}", "type": "IMAGE", "imageKeys": [key], "deleted": True}
            for number, key in enumerate(sorted(set(pictures) - drawn))
        ]
        group = {"mode": "tag", "groupByData": self.by}
        return {
            "searchFilter": f"{self.runs}{recent}",
            "orderByKey": self.order_by,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "compareRunSections": [_heading(section, place) for place, section in enumerate(self.sections)],
            "compareRunCharts": charts,
            "isAccordionReordered": True,
            "hideEmptyCharts": True,
            "runsHiddenMode": "SHOW_ALL",
            "groupBy": {"aggregateFunction": "average", "groupByKeys": [group]} if self.by else None,
            "useGroupedValuesInCharts": self.joined,
        }


def _heading(section: Section, place: int) -> dict[str, Any]:
    size = {"columns": section.columns, "cardHeight": section.height}
    return {"uuid": f"s{place}", "name": section.name, "display": True, "isReordered": True, **_OURS, **size}


def _cards(section: Section, place: int) -> list[dict[str, Any]]:
    home = {"metricSectionId": f"s{place}", "runsCountToCompare": 100, **_OURS}
    return [{"uuid": f"s{place}c{n}", **home, **chart.facts()} for n, chart in enumerate(section.charts)]
