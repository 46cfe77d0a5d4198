"""The optional dependencies of ``pyproject.toml`` that formats of files need."""

from importlib.metadata import PackageNotFoundError, version

from reflux.components.core.contract import FormatSpec
from reflux.components.core.errors import UserError


def installed(file_format: FormatSpec, who: str) -> str:
    """The installed release of a format's runtime, with its build.

    Args:
        file_format: whose runtime is needed.
        who: needs it, as a sentence begins with it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return version(file_format.runtime)
    except PackageNotFoundError:
        runtime = file_format.runtime
        raise UserError(f"{who} needs the package {runtime}: `pip install {runtime}`.") from None
