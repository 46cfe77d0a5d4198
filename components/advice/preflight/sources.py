"""What the listings of the datasets rule out, before an image is read."""

from pathlib import Path

from reflux.components.core.params.sections import Params
from reflux.components.stages.pretrain.names import read_names


def check_sources(params: Params) -> None:
    """Look for the classes of ``ingest.source_domain`` and ``pretrain.classes``, and the columns of ``pretrain.tasks``.

    A dataset that is not here yet is left to `ingest`.

    Raises:
        UserError: a class or a column is missing, or what is named is no dataset, or no file of names.
    """
    here = {param: Path(path) for param, path in params.datasets.items() if Path(path).exists()}
    own, domain, other = (here.get(param) for param in ("ingest.source", "ingest.source_domain", "pretrain.source"))
    tasks, named = [*params.pretrain.tasks], params.pretrain.mode == "zero-shot"
    if not (own and (domain or named)) and not (other and tasks):
        return
    from reflux.components.stages.ingest.domains import in_order_of
    from reflux.components.stages.ingest.slices import TASKS
    from reflux.components.stages.ingest.source import open_source  # pandas takes a second

    if other and tasks:
        open_source(other, tasks, param="pretrain.source", named_by=TASKS)
    if own and named:
        read_names(Path(params.pretrain.classes), open_source(own).classes)
    if own and domain:
        in_order_of(open_source(own).classes, open_source(domain, param="ingest.source_domain"), domain)
