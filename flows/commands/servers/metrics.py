"""``reflux metrics``: Reflux's metrics for Prometheus, once as text or served until stopped."""

import os
import sys
from contextlib import suppress

from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from reflux.components.core.errors import UserError
from reflux.components.observe.exporter.collector import Exporter
from reflux.components.registry import webhooks
from reflux.flows.commands.registry import registry_params
from reflux.flows.local.environment import HOME, homes

# Prometheus gives up on a scrape after ten seconds, so an MLflow that does not answer must be given up on before.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "PGCONNECT_TIMEOUT": "5"}


def metrics(port: int | None, host: str) -> None:
    """Print the metrics, or serve them until stopped.

    Args:
        port: to serve them on; None prints them.
        host: the address to serve them on.

    Raises:
        UserError: there is no model yet, or the address can't be used.
    """
    params = registry_params()
    for variable, value in _PATIENCE.items():
        os.environ.setdefault(variable, value)
    gate = params.registry.gates.accuracy
    registry, project = CollectorRegistry(), params.project.name
    outboxes = [home / webhooks.HOOKS.relative_to(HOME) for home in (HOME, *homes(project))]
    registry.register(Exporter(project, params.registry.model_name, gate.min if gate else None, _note, outboxes))
    if port is None:
        sys.stdout.write(generate_latest(registry).decode())
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UserError(f"{host}:{port} can't be used ({error.strerror}): choose another --port or --host.") from None
    generate_latest(registry)  # it imports MLflow's client, which takes seconds that a scrape may not have
    print(f"Metrics are at http://{host}:{port}/metrics (Ctrl-C stops them).", flush=True)
    with suppress(KeyboardInterrupt):
        thread.join()
    server.shutdown()


def _note(sentence: str) -> None:
    print(f"Note: {sentence}", file=sys.stderr, flush=True)
