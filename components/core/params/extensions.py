"""The project's own code: losses, networks and more that register themselves, by the decorators that Reflux's own use.

Its files are ``extensions/losses/*.py`` and so on for each kind in the project's root; installed packages name modules
as entry points of the groups ``reflux.losses`` and so on. An extension counts as code of the folder that it extends, so
that a change of it computes again what that folder decides.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb

from reflux.components.core.errors import UserError, listed
from reflux.components.core.params.augment import Augment, StudentAugment
from reflux.components.core.params.distill import Distill
from reflux.components.core.params.registry import Gates, Registry
from reflux.components.core.params.section import Section, rebuild
from reflux.components.core.params.sections import Params
from reflux.components.core.params.training import Finetune, Pretrain, Student, Training
from reflux.components.core.project import root

FOLDER = Path("extensions")
EXTENDED: dict[str, str | None] = {  # folders of ``components``, by the kind of extension; None decides no result
    "losses": "stages/distill",
    "networks": "modalities/image/models",
    "figures": "stages/evaluate",
    "formats": "stages/ingest",
    "expectations": "stages/validate",
    "transforms": "modalities/image/views",
    "notifiers": None,
    "boards": None,
}
_SECTIONS: dict[str, tuple[type[Section], ...]] = {  # those that know the names, inner ones first
    "losses": (Distill,),
    "figures": (Gates, Registry),
    "transforms": (Augment, StudentAugment, Pretrain, Training, Finetune, Student),
}

_loaded: set[Path] = set()


@dataclass(frozen=True)
class Extension:
    """A file of the project, or a module of an installed package.

    Attributes:
        kind: one of those in ``EXTENDED``.
        name: its path in the project, or the module's name.
        file: its source.
    """

    kind: str
    name: str
    file: Path


def load() -> None:
    """Import the extensions that have not been imported yet; what they register is known then.

    Raises:
        UserError: one of them can't be imported, or a Python file is in no folder of extensions.
    """
    _refuse_strangers()
    new = [each for each in found() if each.file.absolute() not in _loaded]
    for extension in new:
        _import(extension)
        _loaded.add(extension.file.absolute())
    if sections := [section for kind in {each.kind for each in new} for section in _SECTIONS.get(kind, ())]:
        rebuild([*sections, Params])


def found() -> Iterator[Extension]:
    """The extensions, those of the project first.

    Raises:
        UserError: an entry point of an installed package leads to no file.
    """
    for kind in EXTENDED:
        for file in sorted((root() / FOLDER / kind).glob("*.py")):
            yield Extension(kind, str(file.relative_to(root())), file.resolve())
        for entry in _installed(kind):
            spec = find_spec(entry.module)
            if spec is None or spec.origin is None:
                raise UserError(f"The {kind} {entry.module}, an entry point, can't be found: reinstall its package.")
            yield Extension(kind, entry.module, Path(spec.origin))


@cache
def _installed(kind: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=f"reflux.{kind}"), key=lambda entry: entry.value))


def _refuse_strangers() -> None:
    """Refuse files that would never be imported.

    Raises:
        UserError: Python files lie next to the folders of the kinds.
    """
    folders = [FOLDER / kind for kind in EXTENDED]
    files = (file.relative_to(root()) for file in sorted((root() / FOLDER).rglob("*.py")))
    strangers = (file for file in files if file.parent not in folders)
    if stranger := next(strangers, None):
        places = listed([f"{folder}/" for folder in folders], len(folders))
        raise UserError(f"{stranger} is in no folder of extensions: move it to one of {places}.")


def _import(extension: Extension) -> None:
    """Import an extension under a name of its own.

    Raises:
        UserError: it raised an error, or registers a name that is taken.
    """
    name = f"reflux_{extension.kind}_{extension.file.stem}"
    spec = spec_from_file_location(name, extension.file)
    if spec is None or spec.loader is None:
        raise UserError(f"{extension.name} is no Python module.")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        why = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        first = (why.strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{extension.name}, line {_line(extension.file, error)}, can't be loaded: {first}.") from None


def _line(file: Path, error: BaseException) -> int:
    """The line of a file in which an error came up."""
    source = str(file.absolute())
    if isinstance(error, SyntaxError) and error.filename == source:
        return error.lineno or 1
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == source]
    return (lines[-1] if lines else None) or 1
