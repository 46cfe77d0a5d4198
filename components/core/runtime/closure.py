"""The files that decide a result, derived from what imports what (issue 41).

DVC's keys, checkpoints, stored soft labels and what preflight, ``teachers`` and ``tune`` keep all go by them.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from grimp import ImportGraph, build_graph

_ROOT, _COMPONENTS = "reflux.components", Path(__file__).parents[2]
# How a process runs, files are written and things are named: an error there stops a stage, and leaves no wrong result.
_DECIDE_NOTHING = tuple(
    f"{_ROOT}.core.{part}"
    for part in ("artifacts", "contract", "dvc_yaml", "errors", "params", "project", "registry", "runtime")
)
# DVC knows the values of params, and not what code makes of them.
_DERIVED = f"{_ROOT}.core.params.derived"
_DECIDE = (_DERIVED, f"{_ROOT}.core.params.distill")
_BY_NAME = (
    f"{_ROOT}.stages.distill.losses",
    f"{_ROOT}.stages.ingest.formats",
)  # each imports all its modules, and names none
_PROGRAMS = {f"{_ROOT}.core.export.formats.litert": f"{_ROOT}.core.export.litert_converter"}  # a process of its own


@cache
def files(*names: str) -> tuple[str, ...]:
    """List the files that decide what modules compute: their own, and those of all that they import.

    Args:
        names: modules and packages of ``components``, such as ``stages.distill`` or ``advice.teachers.features``.

    Returns:
        Paths relative to ``components``, sorted: of modules, and the packages' ``__init__.py``.
    """
    graph = _graph()
    waiting = [_DERIVED, *(f"{_ROOT}.{name}" for name in names)]
    found = set[str]()
    while waiting:
        name = waiting.pop()
        new = {name, *graph.find_descendants(name)} - found
        found |= new
        waiting += (imported for module in new for imported in _imported(graph, module))
    return tuple(sorted({path for module in found for path in _paths(module)}))


@cache
def _graph() -> ImportGraph:
    return build_graph("reflux", exclude_type_checking_imports=True, cache_dir=None)


def _imported(graph: ImportGraph, module: str) -> Iterator[str]:
    for name in graph.find_modules_directly_imported_by(module):
        if name.startswith(_ROOT) and (name in _DECIDE or not _is_in(name, _DECIDE_NOTHING)):
            yield name if not _is_in(name, _BY_NAME) else name.rpartition(".")[0]
    if module in _PROGRAMS:
        yield _PROGRAMS[module]


def _paths(module: str) -> Iterator[str]:
    """A module's file, and the ``__init__.py`` of the packages around it, which run before it."""
    parts = module.removeprefix(_ROOT).strip(".").split(".")
    yield from ("/".join([*parts[:depth], "__init__.py"]) for depth in range(len(parts)))
    path = "/".join(parts)
    yield f"{path}/__init__.py" if (_COMPONENTS / path).is_dir() else f"{path}.py"


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
