"""Verbs on boards, metrics, schedules and what all needs."""

from datetime import timedelta
from typing import Annotated

import typer

from reflux.flows.cli.app import UI_PORT, app, in_pipeline, span


@app.command(epilog="Example: reflux ui --port 5001")
@in_pipeline
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65500, help="The port on 127.0.0.1; Prefect gets the next one.")
    ] = UI_PORT,
    prefect: Annotated[bool, typer.Option("--prefect", help="Serve Prefect's UI as well.")] = False,
) -> None:
    """Serve MLflow's web UI: boards, runs and models. Ctrl-C stops it."""
    from reflux.flows.commands.servers.ui import serve

    raise typer.Exit(serve(port, prefect))


@app.command(epilog="Example: MLFLOW_TRACKING_URI=https://mlflow.example.org reflux boards")
@in_pipeline
def boards() -> None:
    """Print links to the boards.

    They are on the MLflow server in MLFLOW_TRACKING_URI or, without one, on the server that `reflux ui` starts.
    """
    from reflux.flows.commands.servers.ui import show_boards

    show_boards(UI_PORT)


@app.command(
    epilog="""
    \b
    Example: reflux metrics
             reflux metrics --port 9464
    """
)
@in_pipeline
def metrics(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve them at /metrics on this port, until stopped.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to serve them on.")] = "127.0.0.1",
) -> None:
    """Print metrics for Prometheus: the champion, the last decision, the last retrain, the data's drift.

    Without MLflow there is one metric, reflux_up, which is 0. What each means, alerts and a dashboard:
    infra/observability.
    """
    from reflux.flows.commands.servers.metrics import metrics as show_or_serve

    show_or_serve(port, host)


@app.command(epilog="Example: PREFECT_API_URL=http://prefect.example.org:4200/api reflux deploy")
def deploy() -> None:
    """Apply infra/prefect.yaml to a Prefect server: pools, schedules, automations. Safe to repeat."""
    from reflux.flows.commands.servers import deploy

    deploy.deploy()


@app.command(
    epilog="""
    \b
    Example: reflux gc --dry-run
             reflux gc --older-than 30d --yes
    """
)
@in_pipeline
def gc(
    older_than: Annotated[
        timedelta,
        typer.Option(parser=span, metavar="SPAN", help="Remove only what is older: hours, days or weeks (36h, 12w)."),
    ] = "90d",  # type: ignore[assignment]  # typer parses it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what nothing refers to any more.

    That is: checkpoints of training that was never resumed, soft labels, flow runs in Prefect, runs and models in
    MLflow, and files in DVC's cache. What a registered version, an open promotion, a search or the present artifacts
    refer to stays, and so does the record of promotions. On a terminal it asks first.
    """
    from reflux.flows.commands.gc import collect

    collect(older_than, dry_run, yes)


@app.command(epilog="Example: reflux doctor")
@in_pipeline
def doctor() -> None:
    """Check everything the pipeline needs, and say how to fix it."""
    from reflux.flows.commands.doctor import examine

    raise typer.Exit(examine())
