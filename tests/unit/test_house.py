"""The rules of the house that import-linter can't see: one word, one place."""

import ast
import json
import os
import re
import sys
import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from subprocess import check_output, run

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from reflux.components.core.contract import STAGES
from reflux.components.core.params.sections import Params

ROOT = Path(__file__).parents[2]
DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_dvc_knows_the_stages_of_the_design_in_their_order():
    assert list(DVC) == ["installed", *STAGES], "installed is a look at what decides, and no stage of the pipeline"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_the_same_word_everywhere(stage: str):
    assert DVC[stage]["cmd"] == f"python -m reflux.components.stages.{stage}"
    assert (ROOT / "components/stages" / stage / "__main__.py").is_file()
    outs = [o if isinstance(o, str) else next(iter(o)) for o in DVC[stage]["outs"] + DVC[stage].get("metrics", [])]
    assert all(out.startswith(f"artifacts/{stage}/") for out in outs)
    assert f"artifacts/{stage}/run.json" in outs


def test_params_that_stages_depend_on_exist_and_hardware_is_none_of_them():
    fields = {field.alias or name for name, field in Params.model_fields.items()}
    used = {
        param.split(".")[0] for stage in DVC.values() for param in stage.get("params", []) if isinstance(param, str)
    }
    assert used <= fields
    assert "run" not in used


def test_only_evaluation_and_the_datas_checks_can_read_the_test_split():
    reads = {stage: entry.get("deps", []) + entry.get("meta", {}).get("reads", []) for stage, entry in DVC.items()}
    readers = {stage for stage, each in reads.items() if "artifacts/ingest/shards/test" in each}
    assert readers == {"evaluate"}
    whole_table = {
        stage for stage, entry in DVC.items() if "artifacts/ingest/manifest.parquet" in entry.get("deps", [])
    }
    assert whole_table == {"validate", "evaluate"}


def ends(text: str) -> list[str]:
    """The nodes that an end of an arrow names, without their labels."""
    return [re.sub(r"[\[(].*", "", node).strip() for node in text.split(" & ")]


def test_the_diagram_draws_what_the_stages_read():
    """Each arrow between stages is a dependency, and each dependency an arrow or a way over several of them."""
    page = (ROOT / "infra/docs/pages/explanation/how-it-works.md").read_text(encoding="utf-8")
    diagram = re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert diagram is not None
    drawn = {
        (one, other)
        for line in diagram[1].splitlines()
        for left, right in pairwise(line.split(" --> "))
        for one in ends(left)
        for other in ends(right)
        if {one, other} <= set(STAGES)
    }
    artifacts = [(dep, name) for name in STAGES for dep in DVC[name]["deps"] if dep.startswith("artifacts/")]
    reads = {(dep.split("/")[1], name) for dep, name in artifacts}
    assert drawn <= reads
    reached = set(drawn)
    while new := {(a, d) for a, b in reached for c, d in reached if b == c} - reached:
        reached |= new
    assert reads <= reached


def test_a_test_stands_where_the_code_does():
    """``test_loop.py`` or ``test_loop_resumes.py`` is about the module, package or folder ``loop`` of the same path."""
    strangers = set()
    for file in (*(ROOT / "tests/unit").rglob("test_*.py"), *(ROOT / "tests/integration").rglob("test_*.py")):
        place, name = file.relative_to(ROOT / "tests").parts[1:-1], file.stem.removeprefix("test_")
        rooms = [ROOT.joinpath(top, *place) for top in ("", "components", "flows", "infra", "benchmarks")]
        known = {path.stem.strip("_") for room in rooms if room.is_dir() for path in room.iterdir()}
        if not any(name == word or name.startswith(f"{word}_") for word in known):
            strangers.add("/".join((*place, file.name)))
    assert strangers == {
        "stages/distill/losses/test_goldens.py",  # all losses against torchdistill's values
        "stages/distill/test_pages.py",  # the examples on the pages next to the code
        "registry/test_command.py",  # the command's verbs on a registry
        "test_house.py",
        "test_workflows.py",  # .github/workflows
    }


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_folders_files_and_functions_are_small_enough_to_find_ones_way():
    tops = ("benchmarks", "components", "flows", "infra", "tests")
    files = {file.resolve() for top in tops for file in (ROOT / top).rglob("*.py")}  # the package links to some
    folders = Counter(file.parent for file in files if file.name != "__init__.py")
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    nodes = ((file, node) for file, text in texts.items() for node in ast.walk(ast.parse(text)))
    functions = [(each, node) for each, node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(functions) > 1000
    assert [str(folder) for folder, count in folders.items() if count > 14] == []
    assert [str(file) for file, text in texts.items() if text.count("\n") > 400] == []
    assert [f"{file}: {node.name}" for file, node in functions if lines_of(node) > 60] == []


def test_the_shards_of_make_test_all_are_every_test_file_once():
    nightly = YAML(typ="safe").load((ROOT / ".github/workflows/nightly.yml").read_text(encoding="utf-8"))
    job = nightly["jobs"]["test-all"]
    assert job["steps"][-1]["run"] == "make test-all SHARD=${{ matrix.shard }}"
    files: list[str] = []
    for shard in job["strategy"]["matrix"]["shard"]:
        command = check_output(["make", "-n", "test-all", f"SHARD={shard}"], cwd=ROOT, text=True)
        pytest_files = command[command.index("$(find") + 2 : command.rindex(")")]
        files += check_output(["sh", "-c", pytest_files], cwd=ROOT, text=True).split()
    assert sorted(files) == sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("test_*.py"))


SCHEMAS = {
    ".github/workflows/*.yml": ("vendor.github-workflows", "custom.github-workflows-require-timeout"),
    "infra/package/reflux/template/github/workflows/*.yml": ("vendor.github-workflows",),
    ".github/dependabot.yml": ("vendor.dependabot",),
    ".github/ISSUE_TEMPLATE/[!c]*.yml": ("vendor.github-issue-forms",),
    ".github/ISSUE_TEMPLATE/config.yml": ("vendor.github-issue-config",),
    "CITATION.cff": ("vendor.citation-file-format",),
}
CHECKS = [(file, schema) for place, names in SCHEMAS.items() for file in sorted(ROOT.glob(place)) for schema in names]


@pytest.mark.parametrize(("file", "schema"), CHECKS, ids=lambda each: getattr(each, "name", each))
def test_a_file_for_github_is_one_that_github_takes(file: Path, schema: str):
    content = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    assert list(Draft7Validator(get_builtin_schema(schema)).iter_errors(content)) == []


def test_workflows_and_the_devcontainer_name_targets_and_versions_that_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    workflows = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / ".github/workflows").glob("*.yml")}
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    named = re.findall(r"(?:run: |&& |^ +)make ([\w-]+)", "\n".join(workflows.values()), re.MULTILINE)
    assert {*named, container["postCreateCommand"].removeprefix("make ")} <= targets
    oldest = project["requires-python"].removeprefix(">=")
    for name in ("tests", "release"):
        assert f'python: ["{oldest}", ' in workflows[name]
    assert container["image"].endswith(f":{oldest}")
    cited = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_a_release_takes_its_notes_from_the_changelog(tmp_path: Path):
    release = YAML(typ="safe").load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    (script,) = [step["run"] for step in release["jobs"]["build"]["steps"] if "awk" in step.get("run", "")]
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    text = f"# Changelog\n\n## Unreleased\n\n- later\n\n## {version} - 2026-12-01\n\n- a change\n\n## 0.0.1\n\n- old\n"
    (tmp_path / "CHANGELOG.md").write_text(text, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for tag, code in ((f"v{version}", 0), ("v9.9.9", 1)):
        environment = {"PATH": path, "GITHUB_REF_NAME": tag}
        assert run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, check=False).returncode == code
    assert (tmp_path / "dist-notes/notes.md").read_text(encoding="utf-8").strip() == "- a change"
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n", encoding="utf-8")
    environment = {"PATH": path, "GITHUB_REF_NAME": f"v{version}"}
    assert run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, check=False).returncode == 1
