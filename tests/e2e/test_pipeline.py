"""The command as a newcomer uses it, from a folder of images to a promoted student, each step a process of its own."""

import itertools
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from reflux.components.core.artifacts import read_json
from reflux.components.core.contract import STAGES
from reflux.components.observe.boards import declared
from reflux.flows.local.prefect_server import free_port
from tests.e2e.command import environment, reflux
from tests.workspaces import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_project) -> Path:
    """A copy without git, as from an archive, in a folder with a space in its name."""
    return tiny_project(tmp_path_factory.mktemp("e2e") / "my copy")


def client_of(folder: Path):
    """Of a copy: a client keeps its connection to a file that the next test replaces."""
    from mlflow import MlflowClient

    copy = Path(tempfile.mkdtemp(dir=folder.parent)) / "mlflow.db"
    shutil.copy(folder / "mlflow.db", copy)
    return MlflowClient(f"sqlite:///{copy}")


def runs(folder: Path, kind: str) -> list:
    client = client_of(folder)
    experiment = client.get_experiment_by_name("shapes")
    return client.search_runs([experiment.experiment_id], f"tags.run_kind = '{kind}'", order_by=["start_time"])


@pytest.fixture(scope="module")
def first(project) -> "subprocess.CompletedProcess[str]":
    done = reflux(project, "run")
    shutil.copytree(project, project.parent / "as the first run left it", symlinks=True)
    return done


@pytest.fixture(autouse=True)
def after_the_first_run(project, first) -> Iterator[None]:
    """Each test begins where the first run ended, in the same folder: MLflow's database holds absolute paths."""
    yield
    shutil.rmtree(project)
    shutil.copytree(project.parent / "as the first run left it", project, symlinks=True)


def test_the_first_run_ends_with_a_champion(project, first):
    assert first.returncode == 0, first.stdout + first.stderr
    assert "shapes-student version 1 is the new @champion." in first.stdout
    assert "Lineage without git" in first.stdout
    for stage in STAGES:
        assert f"{stage}: started" in first.stdout
    for words in (
        "teacher",
        "student",
        "control",
        "Distillation gained",
        "reflux ui",
        "reflux predict IMAGE",
        "model-card.html",
    ):
        assert words in first.stdout
    assert read_json(project / "artifacts" / "promote" / "decision.json")["status"] == "VALIDATED"


def test_mlflow_knows_the_run_its_stages_and_their_lineage(project, first):
    parent = runs(project, "pipeline")[0]
    assert parent.info.status == "FINISHED"
    tags = parent.data.tags
    assert tags["git.sha"] == "none"
    assert tags["dvc.data_md5"].endswith(".dir")
    assert len(tags["params.sha256"]) == 64
    assert len(tags["prefect.flow_run_id"]) == 36
    assert parent.data.metrics["test/student_accuracy"] > 0.5
    assert "gain/accuracy" in parent.data.metrics
    children = [run for run in runs(project, "stage") if run.data.tags["mlflow.parentRunId"] == parent.info.run_id]
    assert sorted(run.info.run_name for run in children) == sorted(STAGES)
    assert {run.info.status for run in children} == {"FINISHED"}


def test_predict_answers_from_the_champion(project, first):
    done = reflux(project, "predict", "data/shapes/test/wave/wave-3.png")
    assert done.returncode == 0, done.stderr
    assert "shapes-student version 1" in done.stdout
    assert done.stdout.count(" %") == 3


def test_a_second_run_trains_nothing_says_so_and_links_what_made_the_artifacts(project, first):
    again = reflux(project, "run")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing was trained" in again.stdout
    assert "started" not in again.stdout
    assert "shapes-student version 1 is the @champion." in again.stdout
    tags = runs(project, "pipeline")[-1].data.tags
    for stage in STAGES:
        made = read_json(project / "artifacts" / stage / "run.json")
        assert tags[f"restored.{stage}"] == (made["mlflow_run_id"] or f"reflux.journal={made['journal']}")


@pytest.mark.long
def test_a_rejected_student_is_registered_and_the_champion_stays(project, first):
    done = reflux(project, "run", "-S", "evaluate.latency_runs=21", "-S", "registry.gates.latency_ms_p95.max=0.00001")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Computed: evaluate. The rest was unchanged." in done.stdout
    assert "✗ Latency p95" in done.stdout
    assert "is REJECTED, as @challenger; version 1 stays the champion." in done.stdout
    listed = reflux(project, "history").stdout
    assert "version 2 rejected" in listed
    assert "exceeds the maximum of 1e-05 ms" in " ".join(listed.split())


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("student.model=resnet8_slm", "No model is named resnet8_slm; did you mean resnet8_slim"),
        pytest.param(
            "distill.method={name: fitnet, student: stage:7}", "resnet8_slim has no stage:7", marks=pytest.mark.long
        ),
        pytest.param(
            "registry.gates.size_kb.max=1", "registry.gates.size_kb.max = 1 can't be passed", marks=pytest.mark.long
        ),
    ],
)
def test_what_can_be_known_before_training_is_refused_and_changes_nothing(project, first, assignment, sentence):
    before = (project / "params.yaml").read_bytes()
    done = reflux(project, "run", "-S", assignment)
    assert done.returncode == 2
    assert f"Error: {sentence}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "started" not in done.stdout
    assert (project / "params.yaml").read_bytes() == before


# The test split is tiny: it can't show that a model is no worse than another by less than some points.
INT8 = ("-S", "compress.ships=onnx-int8", "-S", "registry.gates.size_kb.max=60", "-S", "registry.champion.margin=0.2")


@pytest.mark.long
def test_a_gate_that_the_data_rules_out_is_refused_before_training(project, first):
    gate = "registry.slices.gates={class: {accuracy: {min: 0.5}}}"  # of 30 test images, and a class has 20
    done = reflux(project, "run", "-S", "finetune.lr=0.003", "-S", gate)
    assert done.returncode == 2
    assert "Error: registry.slices.gates.class.accuracy.min can't be passed. " in done.stderr
    assert f"params.yaml keeps finetune.lr=0.003, {gate}: the next run uses it as well." in done.stderr
    assert "Traceback" not in done.stderr
    assert "started" not in done.stdout


@pytest.mark.long
def test_the_int8_file_is_judged_registered_and_asked(project, first):
    done = reflux(project, "run", *INT8)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "student, fp32" in done.stdout
    decision = read_json(project / "artifacts/promote/decision.json")
    int8 = project / "artifacts/compress/student-int8.onnx"
    assert decision["figures"]["size_bytes"] == int8.stat().st_size
    assert decision["status"] == "VALIDATED", decision["reasons"]
    answered = reflux(project, "predict", "data/shapes/test/wave/wave-3.png", "--model", str(decision["version"]))
    assert answered.returncode == 0, answered.stderr


@pytest.mark.long
def test_the_boards_show_every_retrain_in_a_browser(project, first, browser_page):
    """Each board renders what it declares, with MLflow's values, and asks nobody outside."""
    from playwright.sync_api import expect

    assert reflux(project, "run", "-S", "evaluate.latency_runs=24").returncode == 0
    port = free_port()
    command = [sys.executable, "-u", "-m", "reflux.flows.cli", "ui", "--port", str(port)]
    ui = subprocess.Popen(command, cwd=project, env=environment(project), stdout=subprocess.PIPE, text=True)
    try:
        printed = list(itertools.takewhile(lambda line: "anyone who debugs" not in line, ui.stdout))
        links = re.findall(r"http://\S+", "".join(printed[1:]))
        assert len(links) == len(declared.BOARDS)
        for board, link in zip(declared.BOARDS.values(), links, strict=True):
            browser_page.goto("about:blank")  # states leak between addresses that differ behind the #
            browser_page.goto(link)
            expect(browser_page.get_by_test_id("saved-views-trigger")).to_have_text(f"{board.name} v1", timeout=60_000)
            headings = browser_page.get_by_test_id("experiment-view-compare-runs-section-header")
            expect(headings).to_have_count(len(board.sections), timeout=60_000)
            cards = browser_page.get_by_test_id("experiment-view-compare-runs-card")
            expect(cards.locator("svg.main-svg, .parcoords, img").first).to_be_visible(timeout=60_000)
            expect(browser_page.get_by_text("Something went wrong")).to_have_count(0)
            if board is declared.HEALTH:
                assert drawn(browser_page, "test/student_accuracy") == history(project, "test/student_accuracy")
                for other in declared.BOARDS.values():
                    expect(browser_page.get_by_role("link", name=other.name, exact=True).first).to_be_visible()
        browser_page.goto(f"http://127.0.0.1:{port}/#/models/shapes-student")
        champion = browser_page.get_by_role("row").filter(has_text="@ champion")
        expect(champion).to_have_count(1, timeout=60_000)
        expect(champion).to_contain_text("Version 1")
        expect(browser_page.get_by_text("Where it comes from: data").first).to_be_visible()
        outside = [
            url for url in browser_page.requested if not url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))
        ]
        assert [url for url in outside if url != "about:blank"] == []
    finally:
        ui.send_signal(signal.SIGINT)
        assert ui.wait(timeout=120) == 0


def drawn(page, metric: str) -> list[tuple[int, float]]:
    """The points of a metric's line in the first chart that has one."""
    heading = page.get_by_role("heading", name=metric)
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has=heading).first
    card.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    traces = card.locator(".js-plotly-plot").first.evaluate(
        "e => e.data.map(t => [t.mode, t.name, [...t.x], [...t.y]])"
    )
    _, _, x, y = next(trace for trace in traces if trace[0] == "lines+markers")
    return [(int(step), round(value, 6)) for step, value in zip(x, y, strict=True)]


def history(project: Path, metric: str) -> list[tuple[int, float]]:
    """A metric of every retrain that has it, by the retrain's number."""
    points = [(int(run.data.tags["retrain"]), run.data.metrics.get(metric)) for run in runs(project, "pipeline")]
    return sorted((number, round(value, 6)) for number, value in points if value is not None)


@pytest.mark.long
def test_without_mlflow_everything_is_trained_and_sent_later(project, first):
    done = subprocess.run(
        [sys.executable, "-m", "reflux.flows.cli", "run", "-S", "evaluate.latency_runs=22"],
        cwd=project,
        env=environment(project) | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Trained, but not registered: MLflow at http://127.0.0.1:9 does not answer" in done.stderr
    assert "Distillation gained" in done.stdout
    assert len(list((project / ".reflux" / "outbox").glob("*/journal.jsonl"))) == 2
    before = len(runs(project, "pipeline"))
    later = reflux(project, "run")
    assert later.returncode == 0, later.stdout + later.stderr
    assert "nothing was trained" in later.stdout
    assert not list((project / ".reflux" / "outbox").glob("*/journal.jsonl"))
    assert len(runs(project, "pipeline")) == before + 2


def test_broken_data_stops_the_run_before_any_training(project, first):
    wave, flat = (project / "data" / "shapes" / folder for folder in ("train/wave", "test/flat"))
    twins = {wave / f"wave-{number}.png": flat / f"twin-{number}.png" for number in range(6)}
    for image, twin in twins.items():
        twin.write_bytes(image.read_bytes())
    done = reflux(project, "run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Error: " in done.stderr
    assert "12 under two labels" in done.stderr
    assert "wave-0.png" in done.stderr
    assert "finetune: started" not in done.stdout


@pytest.mark.long
def test_a_prefect_server_that_dies_in_mid_run_is_named_and_nothing_goes_on(project, first):
    command = [sys.executable, "-m", "reflux.flows.cli", "run", "-S", "evaluate.latency_runs=23"]
    with (project / "out.txt").open("w") as out:
        process = subprocess.Popen(
            command, cwd=project, env=environment(project), stdout=out, stderr=subprocess.STDOUT, text=True
        )
    try:
        while "evaluate: started" not in (project / "out.txt").read_text():
            assert process.poll() is None, (project / "out.txt").read_text()
            time.sleep(0.1)
        for server in psutil.Process(process.pid).children(recursive=True):
            if "server" in server.cmdline():
                server.kill()
        assert process.wait(timeout=300) == 2, (project / "out.txt").read_text()
    finally:
        process.kill()
    output = (project / "out.txt").read_text()
    assert "Prefect's embedded server ended during the run" in output
    assert "Traceback" not in output
    assert not at_work(project)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process_and_the_next_one_says_killed(project, first, number):
    with (project / "out.txt").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "reflux.flows.cli", "run", "-S", "student.steps=100000"],
            cwd=project,
            env=environment(project),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        while "control: resnet8_slim" not in (project / "out.txt").read_text():
            assert process.poll() is None, (project / "out.txt").read_text()
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=300) == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    finally:
        process.kill()
    until(lambda: not at_work(project))
    assert ": failed" not in (project / "out.txt").read_text()
    if number == signal.SIGKILL:
        subprocess.run(
            [sys.executable, "-c", "from reflux.components.core.runtime import tracking; print(tracking.deliver())"],
            cwd=project,
            env=environment(project) | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"},
            check=True,
        )
    assert runs(project, "pipeline")[-1].info.status == "KILLED"
    assert [run.info.status for run in runs(project, "stage") if run.info.run_name == "control"][-1] == "KILLED"


@pytest.mark.long
def test_a_run_that_was_killed_in_mid_training_goes_on_as_the_same_run(project, first):
    """Kill -9, then the same command: one MLflow run a stage, with one continuous curve."""

    def distillations() -> list:
        return [run for run in runs(project, "stage") if run.info.run_name == "distill"]

    kept, before = project / ".reflux/checkpoints/distill", len(distillations())
    settings = ["student.steps=3000", "student.eval_every=100", "run.checkpoint_every_s=0.2"]
    command = [
        sys.executable,
        "-m",
        "reflux.flows.cli",
        "run",
        *(word for setting in settings for word in ("-S", setting)),
    ]
    with (project / "out.txt").open("w") as out:
        process = subprocess.Popen(command, cwd=project, env=environment(project), stdout=out, stderr=subprocess.STDOUT)
    try:
        while not list(kept.glob("[!.]*.pt")):
            assert process.poll() is None, (project / "out.txt").read_text()
            time.sleep(0.1)
        time.sleep(0.3)
    finally:
        process.kill()
    until(lambda: not at_work(project))
    again = reflux(project, "run")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "distill: goes on after" in again.stdout
    trained = distillations()
    assert len(trained) == before + 1
    assert trained[-1].info.status == "FINISHED"
    assert trained[-1].data.tags["mlflow.parentRunId"] == runs(project, "pipeline")[-1].info.run_id
    curve = client_of(project).get_metric_history(trained[-1].info.run_id, "val/accuracy")
    assert [point.step for point in curve] == list(range(100, 3001, 100))


def at_work(folder: Path) -> list[list[str]]:
    left = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process.cmdline())
        except psutil.Error:
            continue
    return left
