"""The ``reflux`` command: a thin function a verb, which imports what it needs, so that ``-h`` is instant."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from reflux.components.core.artifacts import translate_os_error
from reflux.components.core.errors import UserError
from reflux.flows.local.environment import QUIET

UI_PORT = 5000
HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="From a folder of images to a small model a team can trust.",
    epilog="Start with: reflux run",
    context_settings=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Manage your datasets.", context_settings=HELP, no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")


@app.command(epilog="Example: reflux new flowers --from ~/pictures/flowers")
def new(
    folder: Annotated[Path, typer.Argument(help="The project's folder, which must not exist yet.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="A dataset, as for reflux data add; without one, a sample."),
    ] = None,
) -> None:
    """Make a project: params, pipeline, data and schedules in a git repository of its own."""
    from reflux.flows.commands.new import new as make

    print(make(folder, source))


@app.command(epilog="Example: reflux run -S student.steps=3000 -S seed=1")
def run(
    assignments: Annotated[
        list[str] | None,
        typer.Option("-S", metavar="SECTION.KEY=VALUE", help="Set a param in params.yaml first; can be repeated."),
    ] = None,
) -> None:
    """Run the pipeline, then register and promote the student.

    Only what has changed is computed, and only a student that passes its gates is promoted.

    Exit codes: 0 done (whatever the gates decided), 1 a stage failed, 2 user error, 3 trained but MLflow was away,
    130 stopped.
    """
    from reflux.flows.commands.run import run_pipeline

    raise typer.Exit(run_pipeline(assignments or []))


@app.command(epilog="Example: reflux plan -S student.steps=3000")
def plan(
    assignments: Annotated[
        list[str] | None,
        typer.Option("-S", metavar="SECTION.KEY=VALUE", help="As if this param were set; can be repeated."),
    ] = None,
) -> None:
    """Show what the next run will compute, why, and how long it takes.

    Nothing is computed or changed. Times are those of this machine: of its earlier runs, or from a few timed steps.
    """
    from reflux.flows.commands.plan import plan as show_plan

    show_plan(assignments or [])


@app.command(
    epilog="""
    \b
    Example: reflux teachers
             reflux teachers resnet18.a1_in1k --download --size 128 --size 224
             reflux teachers --take tf_efficientnet_lite2
    """
)
def teachers(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEACHER",
            help="More candidates: timm's names, checkpoints (NETWORK=FILE for those of others), models:/ URIs.",
        ),
    ] = None,
    sizes: Annotated[
        list[int] | None,
        typer.Option("--size", min=16, help="An image size in pixels; can be repeated.  [default: 80, 128, 224]"),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 3,
    download: Annotated[bool, typer.Option("--download", help="Fetch weights of TEACHER from timm's hub.")] = False,
    take: Annotated[
        str | None,
        typer.Option(metavar="TEACHER", help="Write this one to params.yaml, at the quickest size that is as good."),
    ] = None,
) -> None:
    """Rank pretrained teachers on your labeled images, before any is trained.

    Compared are the weights on this machine: the project's own, those of installed packages and those that timm has
    cached. A linear probe on their frozen features says which suits the dataset; the test split is not opened. What was
    computed once is kept.
    """
    from reflux.flows.commands.teachers import rank

    rank(names or [], sizes or [], minutes, download, take)


@app.command(
    epilog="""
    \b
    Example: reflux tune --minutes 20
             reflux tune --take smallest
    """
)
def tune(
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="How long it may take.  [default: 20, or with --take none: what is there is taken]"),
    ] = None,
    objective: Annotated[
        str, typer.Option(metavar="FIGURES", help="What to improve, divided by commas; quality first.")
    ] = "accuracy,size_kb,latency_ms_p95",
    workers: Annotated[int, typer.Option(min=1, help="Processes that train at the same time.")] = 1,
    take: Annotated[
        str | None,
        typer.Option(metavar="smallest|best|knee|N", help="Write this one, or trial N, to params.yaml."),
    ] = None,
) -> None:
    """Search the smallest student that passes its gates.

    Candidates learn from the soft labels that are stored, so that the teacher is not asked, and are judged on
    validation images; the test split is not opened. What is searched: tune.space in params.yaml. The same command goes
    on where the last one ended.

    Exit codes: 0 done, 2 user error, 130 stopped.
    """
    from reflux.flows.commands.tune import tune as search

    raise typer.Exit(search(minutes, objective, workers, take))


@data.command("add", epilog="Example: reflux data add ~/flowers --minutes 20 --max-kb 100")
def data_add(
    path: Annotated[Path, typer.Argument(help="A folder of class folders, or one with a CSV or Parquet manifest.")],
    name: Annotated[str | None, typer.Option(help="The dataset's name in data/; by default the folder's name.")] = None,
    minutes: Annotated[float, typer.Option(help="How long a run may take on this machine.")] = 10,
    max_kb: Annotated[
        float | None, typer.Option(help="How large the file that ships may be.  [default: 200; in int8 about 56]")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(metavar="SHARE", help="The accuracy that the student must reach, such as 0.9.")
    ] = None,
) -> None:
    """Copy a dataset to data/, track it with DVC, and write a plan for it to params.yaml.

    What is planned follows from the images, the time allowed and the speed of this machine.
    """
    from reflux.flows.commands.data import add

    print(add(path, name, minutes, max_kb, min_accuracy))


@data.command("list", epilog="Example: reflux data list")
def data_list() -> None:
    """List the datasets that have params in this checkout; the active one has a star."""
    from reflux.flows.commands.datasets import show

    show()


@data.command("use", epilog="Example: reflux data use fashion-mnist")
def data_use(name: Annotated[str, typer.Argument(help="The dataset's name, as in reflux data list.")]) -> None:
    """Make another dataset the active one.

    Its params are moved from data/NAME.params.yaml to params.yaml, and those of the present one take their place in
    data/. What was computed before is restored by the next reflux run, not computed again.
    """
    from reflux.flows.commands.datasets import use

    print(use(name))


@app.command(
    epilog="""
    \b
    Example: reflux predict data/shoe.png
             reflux predict new/ old/shoe.png --top 3
             reflux predict 'photos/*.jpg' --csv > classes.csv
    """
)
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
def approve(
    version: Annotated[int, typer.Argument(min=1, help="The version that awaits approval.")],
    reason: Annotated[str, typer.Option(help="The reason, for the record.")],
) -> None:
    """Promote a version that awaits approval.

    Versions do so where params.yaml has registry.approval: human.

    Exit codes: the same as for promote.
    """
    from reflux.flows.commands import registry

    raise typer.Exit(registry.approve(version, reason))


@app.command(epilog='Example: reflux rollback --reason "worse on the new cameras"')
def rollback(
    reason: Annotated[str, typer.Option(help="The reason, for the record.")],
    to: Annotated[int | None, typer.Option(min=1, help="An earlier champion instead of the previous one.")] = None,
) -> None:
    """Put the previous champion back into production."""
    from reflux.flows.commands import registry

    registry.rollback(reason, to)


@app.command(epilog="Example: reflux history --json")
def history(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what is in production, and who changed it, when and why."""
    from reflux.flows.commands import registry

    registry.history(as_json)


@app.command(epilog="Example: reflux reconcile")
def reconcile() -> None:
    """Finish or close interrupted promotions.

    promote, approve, rollback and history do this first.
    """
    from reflux.flows.commands import registry

    registry.reconcile()


@app.command(epilog="Example: reflux lineage 3")
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


@app.command(epilog="Example: reflux publish 3 registry.example.com/team/flowers")
def publish(
    version: Annotated[int, typer.Argument(min=1, help="The version's number, as in reflux history.")],
    target: Annotated[
        str, typer.Argument(metavar="REGISTRY/REPOSITORY[:TAG]", help="The tag is the number by default.")
    ],
) -> None:
    """Push a version to an OCI registry: its file, card, preprocessing, evaluation, and signature.

    Credentials are those of docker login or oras login.
    """
    from reflux.flows.commands import registry

    registry.publish(version, target)


@app.command(epilog="Example: reflux ui --port 5001")
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65500, help="The port on 127.0.0.1; Prefect gets the next one.")
    ] = UI_PORT,
    prefect: Annotated[bool, typer.Option("--prefect", help="Serve Prefect's UI as well.")] = False,
) -> None:
    """Serve MLflow's web UI: boards, runs and models. Ctrl-C stops it."""
    from reflux.flows.commands.ui import serve

    raise typer.Exit(serve(port, prefect))


@app.command(epilog="Example: MLFLOW_TRACKING_URI=https://mlflow.example.org reflux boards")
def boards() -> None:
    """Print links to the boards.

    They are on the MLflow server in MLFLOW_TRACKING_URI or, without one, on the server that `reflux ui` starts.
    """
    from reflux.flows.commands.ui import show_boards

    show_boards(UI_PORT)


@app.command(
    epilog="""
    \b
    Example: reflux metrics
             reflux metrics --port 9464
    """
)
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
    from reflux.flows.commands.metrics import metrics as show_or_serve

    show_or_serve(port, host)


@app.command(epilog="Example: PREFECT_API_URL=http://prefect.example.org:4200/api reflux deploy")
def deploy() -> None:
    """Apply infra/prefect.yaml to a Prefect server: pools, schedules, automations. Safe to repeat."""
    from reflux.flows.commands import deploy

    deploy.deploy()


@app.command(epilog="Example: reflux doctor")
def doctor() -> None:
    """Check everything the pipeline needs, and say how to fix it."""
    from reflux.flows.commands.doctor import examine

    raise typer.Exit(examine())


def main() -> None:
    """Run the command; a user error is one sentence and its exit code, mostly 2."""
    os.environ.update(QUIET)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a command which is killed also tidies up
    try:
        app()
    except UserError as error:
        _complain(error)
    except BrokenPipeError:  # the reader of a pipe has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        user_error = translate_os_error(error, Path(error.filename or "."))
        if not isinstance(user_error, UserError):
            raise
        _complain(user_error)


def _complain(error: UserError) -> None:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
