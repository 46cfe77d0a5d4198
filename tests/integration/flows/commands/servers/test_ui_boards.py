import shutil
from pathlib import Path

import pytest

from reflux.components.core.params.file import override_params
from reflux.components.observe.boards import declared
from reflux.flows.commands.servers.ui import show_boards
from tests.integration.observe.boards.runs import retrain


@pytest.mark.parametrize("retrains", [0, 1])
def test_without_a_server_the_links_say_when_they_work(mlflow_home, retrains, capsys):
    shutil.copy(Path(__file__).parents[5] / "params.yaml", mlflow_home)
    override_params(["project.name=demo"], mlflow_home / "params.yaml")
    for _ in range(retrains):
        retrain()
    show_boards(5000)
    printed = capsys.readouterr().out
    if not retrains:
        assert printed == "There is no run of demo yet: `reflux run` makes one, with its boards.\n"
        return
    for board in declared.BOARDS.values():
        assert f"  {board.name:<18} http://127.0.0.1:5000/{board.link('1')}\n" in printed
    assert printed.endswith("These links work while `reflux ui` is running.\n")
