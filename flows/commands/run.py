"""``reflux run``: the pipeline on this machine, on a person's screen."""

import contextlib
import logging
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, cast

from rich.console import Console

from reflux.components.core.artifacts import ARTIFACTS
from reflux.components.core.errors import EXIT_USER_ERROR, UserError
from reflux.components.core.params.file import PARAMS, check_overrides
from reflux.components.core.runtime.stage import EXIT_INTERRUPTED
from reflux.flows.local.environment import RUN_LOG, embed_mlflow, only_run, reflux_command
from reflux.flows.local.prefect_server import PrefectServer, prefect_server
from reflux.flows.outcome import StageFailed
from reflux.flows.pipeline.preflight import preflight
from reflux.flows.repo.checkout import prepare_dvc
from reflux.flows.repo.dataset import fetch
from reflux.flows.report.display import Display, LiveDisplay, console, duration, show_on

if TYPE_CHECKING:
    from reflux.flows.report.result import Result

EXIT_FAILED = 1
EXIT_NOT_REGISTERED = 3
_TAIL_LINES = 15


def run_pipeline(assignments: list[str]) -> int:
    """Run the whole pipeline and print the result.

    Returns:
        0; 1 when a stage failed; 2 for a user error; 3 when everything is trained but MLflow was away, so that
        nothing is registered; 130 when stopped.

    Raises:
        UserError: something is missing or wrong, and nothing was started.
    """
    screen = console()
    params = check_overrides(assignments)  # the flow sets them, once nothing can refuse its start
    embed_mlflow()
    with only_run():
        prepare_dvc()
        fetch(params.datasets)
        stop = Stop()
        try:
            with prefect_server() as server:  # it starts meanwhile
                preflight(assignments, meanwhile=_import_libraries)
                return _run(screen, assignments, server)
        except StageFailed as failed:
            if not stop.requested:
                return _failed(failed, assignments)
        except BaseException:  # libraries wrap a KeyboardInterrupt that hits them into errors of their own
            if not stop.requested:
                raise
        print("Stopped. What is finished is kept: the next `reflux run` continues from there.", file=sys.stderr)
        return EXIT_INTERRUPTED


class Stop:
    """Turns Ctrl-C and SIGTERM into a KeyboardInterrupt, and remembers it."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        if not self.requested:
            os.write(sys.stderr.fileno(), b"\nStopping: the stages have a few seconds to end cleanly.\n")
        self.requested = True
        raise KeyboardInterrupt


def _import_libraries() -> None:
    """Import DVC, MLflow and Prefect, which take seconds, while other processes are awaited."""
    # A live list and Prefect's own log lines would draw over each other; the log file has them.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_INTERNAL_LOGGING_LEVEL", "CRITICAL")
    import dvc.repo  # noqa: F401
    import mlflow  # noqa: F401

    import reflux.flows.retrain  # noqa: F401


def _run(screen: Console, assignments: list[str], server: PrefectServer | None) -> int:
    with contextlib.ExitStack() as stack:
        logger = logging.getLogger("prefect.flow_runs")
        if screen.is_terminal:
            display: Display = stack.enter_context(LiveDisplay(screen, logger))
        else:
            display = Display(lambda text: print(text, flush=True), logger)
        _import_libraries()
        from reflux.flows.report.result import NotRegistered
        from reflux.flows.retrain import retrain

        if server is not None:
            server.wait()
            stack.enter_context(server.needed())
        _log_to_file(logger)
        stack.callback(_flush, logger)
        stack.enter_context(show_on(display))
        problem = None
        try:
            result = cast("Result", retrain(assignments))  # None only where a deployment waits for approval
        except NotRegistered as away:
            result, problem = away.result, str(away)
        except UserError as refused:
            raise UserError(" ".join([str(refused), *_kept(assignments)])) from None
    show(screen, result)
    if problem is not None:
        print(f"Trained, but not registered: {problem}", file=sys.stderr)
        return EXIT_NOT_REGISTERED
    return 0


def show(screen: Console, result: "Result") -> None:
    """Print the end of a run: figures, gain, verdict, version, and where to look next."""
    from reflux.flows.report import text

    screen.print()
    if result.executed:
        rest = "" if len(result.executed) == len(result.outcomes) else " The rest was unchanged."
        screen.print(f"Computed: {', '.join(result.executed)}.{rest}")
    else:
        screen.print("No stage's data, params or code has changed, so nothing was trained.")
    screen.print()
    screen.print(text.table(result.metrics))
    screen.print()
    screen.print(text.gain(result.metrics))
    if taught := text.rounds(result.metrics):
        screen.print(f"\n{taught}", markup=False)
    if on_source := text.source_domain(result.metrics):
        screen.print(f"\n{on_source}", markup=False)
    if confused := text.confusions(result.metrics):
        screen.print(f"\n{confused}", markup=False)
    promotion = result.release.promotion
    if promotion is not None:
        screen.print()
        screen.print(text.reasons(promotion))
        screen.print(f"\n{text.standing(promotion, result.model_name)}", style="bold")
    screen.print(f"\n{duration(result.seconds)} in total. Where to look next:")
    has_champion = promotion is not None and promotion.champion is not None
    steps = _next_steps(has_champion, bool(result.metrics.get("confusions")))
    width = max(len(command) for command, _ in steps)
    for command, purpose in steps:
        screen.print(f"  {command:<{width}}  {purpose}", soft_wrap=True)


def _next_steps(has_champion: bool, has_confusions: bool) -> list[tuple[str, str]]:
    reflux, evaluated = reflux_command(), ARTIFACTS / "evaluate"
    steps = [(f"{reflux} predict IMAGE", "classify an image with the champion")] if has_champion else []
    steps += [
        (f"{reflux} history", "what is in production, and why each version was or was not promoted"),
        (f"{reflux} ui", "the boards, runs and models in MLflow"),
        (str(evaluated / "model-card.html"), "the model card, with figures"),
    ]
    pictured = (str(evaluated / "figures" / "confusions.png"), "images that the student confuses")
    return [*steps, pictured] if has_confusions else steps


def _failed(failed: StageFailed, assignments: list[str]) -> int:
    print(f"Error: {failed}", file=sys.stderr)
    for line in _kept(assignments):
        print(line, file=sys.stderr)
    if failed.user_error:
        return EXIT_USER_ERROR
    print("Its last lines:", *(f"  {line}" for line in failed.tail[-_TAIL_LINES:]), sep="\n", file=sys.stderr)
    print(f"The full log is in {RUN_LOG}.", file=sys.stderr)
    return EXIT_FAILED


def _kept(assignments: list[str]) -> list[str]:
    """Say of a run that failed after its start that its params stay."""
    return [f"{PARAMS} keeps {', '.join(assignments)}: the next run uses it as well."] if assignments else []


def _log_to_file(logger: logging.Logger) -> None:
    """Write the log of Prefect's run loggers to a file, which holds this run alone."""
    file = logging.FileHandler(RUN_LOG, mode="w", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(file)
    # Libraries' warnings would tear the live list apart.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(file)


def _flush(logger: logging.Logger) -> None:
    """Send the log lines that Prefect still holds in the background, before its server ends."""
    for handler in logger.handlers:
        handler.flush()
