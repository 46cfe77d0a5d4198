"""How many small changes of the code that decides its unit tests find: ``make mutants`` (mutmut).

mutmut leaves decorated functions as they are, which all losses are. So a copy of the project is changed, in which a
decorator is applied below its function.
"""

import ast
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("benchmarks", "tests", "params.yaml", "pyproject.toml")
PACKAGE = ROOT / "infra/package/reflux"
MUTATED = ("registry/policy/*.py", "stages/distill/losses/*.py", "core/significance.py")
TESTS = ("tests/unit/registry/policy", "tests/unit/stages/distill/losses", "tests/unit/core/test_significance.py")


def main() -> None:
    """Run mutmut on a copy of the project; print the changes that no test found, and the score."""
    with tempfile.TemporaryDirectory(prefix="reflux-mutants-") as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        # mutmut names a module by the path of its file.
        shutil.copytree(PACKAGE, copy / "reflux", ignore=shutil.ignore_patterns("__pycache__"))
        for pattern in MUTATED:
            for file in (copy / "reflux/components").glob(pattern):
                file.write_text(undecorated(file.read_text(encoding="utf-8")), encoding="utf-8")
        mutmut = [sys.executable, "-m", "mutmut"]
        subprocess.run([*mutmut, "run", "--max-children", "2"], cwd=copy, check=True)
        subprocess.run([*mutmut, "results"], cwd=copy, check=True)
        subprocess.run([*mutmut, "export-cicd-stats"], cwd=copy, check=True, stdout=subprocess.DEVNULL)
        counts = json.loads((copy / "mutants/mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    found = counts["killed"] + counts["timeout"]
    print(f"{found:,} of {counts['total']:,} changes were found ({found / counts['total']:.1%}).")


def undecorated(source: str) -> str:
    """Apply the decorators of a module's functions below them: the same module, in other words."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            wrapped = node.name
            for decorator in reversed(node.decorator_list):
                wrapped = f"{ast.unparse(decorator)}({wrapped})"
            lines[node.end_lineno : node.end_lineno] = ["", "", f"{node.name} = {wrapped}"]
            del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
