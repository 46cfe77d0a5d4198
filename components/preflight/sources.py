"""What the listings of the datasets rule out, before an image is read."""

from pathlib import Path

from reflux.components.core.params.sections import Params


def check_sources(params: Params) -> None:
    """Compare the classes of ``ingest.source_domain`` with the dataset's; one that is not here yet is left to `ingest`.

    Raises:
        UserError: they differ, or one of the two is no dataset.
    """
    own, domain = Path(params.ingest.source), params.ingest.source_domain
    if domain is None or not (own.exists() and Path(domain).exists()):
        return
    from reflux.components.ingest.domains import in_order_of
    from reflux.components.ingest.source import open_source  # pandas takes a second

    in_order_of(open_source(own).classes, open_source(Path(domain), param="ingest.source_domain"), Path(domain))
