"""Verbs that make a project, plan and train."""

from pathlib import Path
from typing import Annotated

import typer

from reflux.flows.cli.app import Pipeline, app, data, finite, in_pipeline


@app.command(epilog="Example: reflux new flowers --from ~/pictures/flowers")
def new(
    folder: Annotated[Path, typer.Argument(help="The project's folder, which must be new or empty.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="A dataset, as for reflux data add; without one, a sample."),
    ] = None,
) -> None:
    """Make a project: params, pipeline, data and schedules in a git repository of its own."""
    from reflux.flows.commands.new import new as make

    print(make(folder, source))


@app.command(epilog="Example: reflux upgrade --check")
def upgrade(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what would change, and exit with 1 if something would.")
    ] = False,
) -> None:
    """Bring a project to the release of Reflux that is installed.

    Params that were renamed get their new names, in params.yaml with its comments; dvc.yaml gets the stages of this
    release and keeps yours; pyproject.toml names the release. What changes is printed first, with the stages that the
    next run computes. All files are written, or none.

    Exit codes: 0 done, 1 with --check: there is something to do, 2 user error.
    """
    from reflux.flows.commands.upgrade import upgrade as bring

    raise typer.Exit(bring(check))


@app.command(epilog="Example: reflux run -S student.steps=3000 -S seed=1")
@in_pipeline
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
@in_pipeline
def plan(
    assignments: Annotated[
        list[str] | None,
        typer.Option("-S", metavar="SECTION.KEY=VALUE", help="As if this param were set; can be repeated."),
    ] = None,
) -> None:
    """Show what the next run will compute, why, and how long it takes.

    No stage runs and nothing changes. Times are those of this machine: of its earlier runs, or from a few timed steps,
    which take the first call up to a minute.
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
@in_pipeline
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
    minutes: Annotated[float, typer.Option(min=0.1, callback=finite, help="How long it may take.")] = 3,
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
@in_pipeline
def tune(
    minutes: Annotated[
        float | None,
        typer.Option(min=0.1, callback=finite, help="How long to search.  [default: 20; with --take, no new search]"),
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
    path: Annotated[
        Path, typer.Argument(help="A folder of class folders or with a manifest, or a file that holds the images.")
    ],
    name: Annotated[str | None, typer.Option(help="The dataset's name in data/; by default that of PATH.")] = None,
    minutes: Annotated[float, typer.Option(callback=finite, help="How long a run may take on this machine.")] = 10,
    max_kb: Annotated[
        float | None,
        typer.Option(callback=finite, help="How large the file that ships may be.  [default: 200; in int8 about 56]"),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(callback=finite, metavar="SHARE", help="The accuracy that the student must reach, such as 0.9."),
    ] = None,
    pipeline: Pipeline = None,
) -> None:
    """Copy a dataset to data/, track it with DVC, and write a plan for it to params.yaml.

    What is planned follows from the images, the time allowed and the speed of this machine. With --pipeline the plan is
    that of pipelines/NAME, which is made if there is none: one project, a further model.
    """
    if pipeline:
        from reflux.flows.commands.pipelines import add_to

        print(add_to(pipeline, path, name, minutes, max_kb, min_accuracy))
    else:
        from reflux.flows.commands.data import add

        print(add(path, name, minutes, max_kb, min_accuracy))
