"""Verbs on files and versions of students."""

from pathlib import Path
from typing import Annotated

import typer

from reflux.components.core.errors import UserError
from reflux.flows.cli.app import app, in_pipeline


@app.command(
    epilog="""
    \b
    Example: reflux predict data/shoe.png
             reflux predict new/ old/shoe.png --top 3
             reflux predict 'photos/*.jpg' --csv > classes.csv
    """
)
@in_pipeline
def predict(
    images: Annotated[
        list[Path],
        typer.Argument(help="PNG, JPEG, WebP, BMP, TIFF or GIF files, folders of them, or patterns in quotes."),
    ],
    model: Annotated[str, typer.Option(help="An alias or a version number.")] = "champion",
    top: Annotated[
        int | None, typer.Option(min=1, help="How many classes to print of each image.  [default: 5 of one file, or 1]")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: file, class, probability.")] = False,
) -> None:
    """Classify images with the model in production.

    Of a folder, the images at any depth are classified. Files that can't be read are listed at the end, on stderr.

    Exit codes: 0 at least one image was classified, 2 user error, or not one could be read.
    """
    from reflux.flows.commands import registry

    registry.predict(images, model, top, as_csv)


@app.command(
    epilog="""
    \b
    Example: reflux bench
             reflux bench champion artifacts/compress/student-int8.onnx --threads 1,2 --batch 1,8
             reflux bench 3 --export pi5
             reflux bench --import report-pi5.json
    """
)
@in_pipeline
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VERSION|FILE",
            help="Versions' numbers, aliases and files.  [default: the files of the last run]",
        ),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="N,…", help="Numbers of threads.")] = "1",
    batch: Annotated[str, typer.Option(metavar="N,…", help="Numbers of images at once.")] = "1",
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a folder to run on a device without Reflux and torch.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--import", metavar="REPORT.json", help="Take what was measured on a device.")
    ] = None,
) -> None:
    """Compare files of students on this machine or on a device, each in its own runtime.

    One table has their bytes, accuracy and agreement on the validation images, load time, memory, p50, p95, and
    processor time in multiples of the first file's, with intervals: they are run in turn, so that a busy machine does
    not falsify it. MLflow keeps it as a run. A gate can judge by a device's report: registry.gates in params.yaml.
    """
    from reflux.flows.commands import bench as command

    if report is not None:
        if names or export:
            raise UserError("--import takes a report alone: leave out --export and the files.")
        command.take(report)
    elif export is not None:
        command.export(names or [], threads, batch, export)
    else:
        command.bench(names or [], threads, batch)


@app.command(epilog="Example: reflux promote 3 --expected-champion 2")
@in_pipeline
def promote(
    version: Annotated[int, typer.Argument(min=1, help="The version's number, as in reflux history.")],
    expected_champion: Annotated[
        int | None,
        typer.Option(min=0, metavar="V", help="Only if the champion is still this version; 0 = none."),
    ] = None,
) -> None:
    """Evaluate a registered version again, and promote it.

    It must pass its gates and be no worse than the champion.

    Exit codes: 0 promoted, 2 user error, 3 refused by a gate or awaiting approval, 4 the champion has changed.
    """
    from reflux.flows.commands import registry

    raise typer.Exit(registry.promote(version, expected_champion))


@app.command(epilog='Example: reflux approve 3 --reason "seen on the new cameras"')
@in_pipeline
def approve(
    version: Annotated[int, typer.Argument(min=1, help="The version that awaits approval.")],
    reason: Annotated[str, typer.Option(help="The reason, for the record.")],
) -> None:
    """Promote a version that awaits approval.

    Versions do so where params.yaml has registry.approval: human.

    Exit codes: 0 promoted, 2 user error or the smoke test failed, 4 the champion has changed.
    """
    from reflux.flows.commands import registry

    raise typer.Exit(registry.approve(version, reason))


@app.command(epilog='Example: reflux rollback --reason "worse on the new cameras"')
@in_pipeline
def rollback(
    reason: Annotated[str, typer.Option(help="The reason, for the record.")],
    to: Annotated[int | None, typer.Option(min=1, help="An earlier champion instead of the previous one.")] = None,
) -> None:
    """Put the previous champion back into production."""
    from reflux.flows.commands import registry

    registry.rollback(reason, to)


@app.command(epilog="Example: reflux history --json")
@in_pipeline
def history(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what is in production, and who changed it, when and why."""
    from reflux.flows.commands import registry

    registry.history(as_json)


@app.command(epilog="Example: reflux reconcile")
@in_pipeline
def reconcile() -> None:
    """Finish or close interrupted promotions.

    promote, approve, rollback and history do this first.
    """
    from reflux.flows.commands import registry

    registry.reconcile()


@app.command(epilog="Example: reflux lineage 3")
@in_pipeline
def lineage(
    of: Annotated[str, typer.Argument(metavar="VERSION", help="A version's number, or the start of a hash.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_events: Annotated[
        bool, typer.Option("--openlineage", help="Print the version's OpenLineage events, one JSON document a line.")
    ] = False,
) -> None:
    """Show what a version was made from.

    Every link is checked now. For the start of a hash, of a commit or a dataset for example, show the versions made
    from it.

    Exit codes: 0 the chain is complete, 1 it is broken (the output says where), 2 user error.
    """
    from reflux.flows.commands import lineage

    raise typer.Exit(lineage.lineage(of, as_json, as_events))


@app.command(
    epilog="""
    \b
    Example: reflux publish 3 registry.example.com/team/flowers
             reflux publish 3 hf://user/flowers
    """
)
@in_pipeline
def publish(
    version: Annotated[int, typer.Argument(min=1, help="The version's number, as in reflux history.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY/REPOSITORY[:TAG]|hf://USER/NAME",
            help="A place in an OCI registry, with the number as tag by default, or a model repository on the hub.",
        ),
    ],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository on the hub public, or push to one that is.")
    ] = False,
) -> None:
    """Push a version to an OCI registry or the Hugging Face hub: its file, card, preprocessing, evaluation, signature.

    Credentials for a registry are those of docker login or oras login. The hub takes HF_TOKEN from the environment, and
    is huggingface.co or where HF_ENDPOINT says.
    """
    from reflux.flows.commands import registry

    registry.publish(version, target, public)
