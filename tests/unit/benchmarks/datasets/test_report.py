from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.datasets.report import bars, figures_of, in_short, notes_of, noticed_loss, power, section
from benchmarks.datasets.runs import Outcome, Run, keep_run
from benchmarks.harness.results import Result, read, write


def outcome(student: float, control: float, taken: float = 8.0, interval: float = 1.5) -> Outcome:
    accuracy = {"teacher": 90.0, "student": student, "control": control}
    gain = student - control
    return Outcome(accuracy, 186.4, 8.0, taken, "", True, [gain - interval, gain + interval])


def stopped(sentence: str, ended_well: bool = True) -> Outcome:
    return Outcome({}, None, None, None, sentence, ended_well)


COUNTS = {"labeled": 2000, "unlabeled": 0, "test": 0}


def published(folder: Path, outcomes: dict[str, list[Outcome]], counts: dict[str, int] = COUNTS) -> Result:
    runs: list[Run] = []
    for name, each in outcomes.items():
        for seed, one in enumerate(each):
            runs = keep_run(Run(name, seed, 10, "abc", counts, "unknown", one), folder)
    write("datasets", figures_of(runs), folder, notes_of(runs))
    return read("datasets", folder)


def test_a_row_has_the_means_over_the_seeds_and_the_interval_of_the_gain(tmp_path: Path):
    published(tmp_path, {"digits": [outcome(96.0, 92.0, 8.5), outcome(97.0, 92.5, 9.0), outcome(95.0, 91.0, 7.5)]})
    row = (
        "| digits | handwritten digits, gray, 8 px | 2,000, drawn | 3 | 90.00 | 96.00 | 91.83 | +4.17 (3.45 to 4.88) |"
        " 186 | 8.0 | 8.5 |"
    )
    text = section(tmp_path)
    assert row in text.splitlines()
    assert text.endswith("Runs: 3 at unknown.")


def test_below_the_bars_stand_the_gains_by_labels_and_the_runs_that_took_too_long(tmp_path: Path):
    published(tmp_path, {"emoji-360": [outcome(64.0, 56.0, 9.9)]}, {"labeled": 360, "unlabeled": 3398, "test": 1906})
    some = {"labeled": 360, "unlabeled": 3000, "test": 1906}
    published(tmp_path, {"emoji": [outcome(70.0, 69.0, 10.1)], "cards": [outcome(81.0, 80.5, 11.1)]}, some)
    *_, facts, _ = section(tmp_path).split("\n\n")
    assert facts.splitlines() == [
        "- the mean gain with at least 9 unlabeled images for each labeled one is +8.00 points (1 of 3 sets)",
        "- the mean gain with fewer is +0.75 points (2 of 3 sets)",
        "- 2 of 3 runs took longer than they were allowed, the longest 11.1 min",
    ]


def test_a_single_run_has_the_interval_of_its_test_images(tmp_path: Path):
    published(tmp_path, {"digits": [outcome(96.0, 92.0, interval=2.5)]})
    assert "| +4.00 (1.50 to 6.50) |" in section(tmp_path)


def test_a_set_with_unlabeled_images_and_a_test_split_has_their_numbers(tmp_path: Path):
    counts = {"labeled": 500, "unlabeled": 9000, "test": 5000}
    published(tmp_path, {"icons": [outcome(80.0, 75.0)]}, counts)
    assert "| desktop icons, color, 22 to 48 px | 500 + 9,000, 5,000 | 1 | 90.00 |" in section(tmp_path)


def test_only_sets_that_were_run_have_a_row_and_stopped_runs_their_sentence(tmp_path: Path):
    published(tmp_path, {"stamps": [stopped("too few images."), stopped("too few images.")]})
    text = section(tmp_path)
    assert "| stamps | cut-out photographs, color, 20 to 2,348 px | 2,000, drawn | 2 |  |  |  |  |  |  |  |" in text
    assert "- `stamps`: too few images.\n" in text
    assert "digits" not in text
    assert text.count("- holds") == 1, "nothing is said of gains where there are none"
    assert "missed" not in text


def test_there_is_no_table_before_the_first_run(tmp_path: Path):
    assert section(tmp_path) == in_short(tmp_path) == "Not measured yet."


def test_the_readme_leaves_out_what_the_images_are(tmp_path: Path):
    published(tmp_path, {"digits": [outcome(96.0, 92.0)]})
    title, sides, row, _, at = in_short(tmp_path).splitlines()
    assert title.startswith("| set | labeled + unlabeled, test | seeds | teacher |")
    assert sides == "| --- |" + " ---: |" * 9
    assert row == "| digits | 2,000, drawn | 1 | 90.00 | 96.00 | 92.00 | +4.00 (2.50 to 5.50) | 186 | 8.0 | 8.0 |"
    assert at == "`datasets.json`: 1 runs at 1 commits."


@pytest.mark.parametrize(
    ("runs", "missed"),
    [
        ({"digits": [outcome(96.0, 92.0), outcome(97.0, 92.5)], "icons": [outcome(70.0, 69.0), outcome(69.0, 70)]}, []),
        ({"digits": [outcome(99.0, 90.0)] * 2, "icons": [outcome(69.0, 70.0), outcome(69.1, 70.0)]}, ["on no set"]),
        ({"digits": [outcome(91.0, 90.0), outcome(92.0, 90.0)]}, ["the mean gain"]),
        ({"digits": [outcome(96.0, 92.0)], "icons": [stopped("Traceback", ended_well=False)]}, ["every run"]),
        ({"digits": [outcome(96.0, 92.0, 16.0), outcome(96.0, 92.0, 12.0)]}, ["the median run"]),
    ],
)
def test_each_bar_can_be_missed(tmp_path: Path, runs: dict[str, list[Outcome]], missed: list[str]):
    held = bars(published(tmp_path, runs))
    assert len(held) == 4
    below = [bar for bar, holds in held.items() if not holds]
    assert [bar.startswith(name) for bar, name in zip(below, missed, strict=True)] == [True] * len(missed)


def test_a_set_below_its_control_is_named(tmp_path: Path):
    held = bars(published(tmp_path, {"icons": [outcome(69.0, 70.0), outcome(69.1, 70.0)]}))
    assert held["on no set is the upper end of the gain's interval below 0 (icons)"] is False


def test_the_interval_of_a_single_run_decides_whether_it_is_below(tmp_path: Path):
    noise = bars(published(tmp_path / "noise", {"icons": [outcome(69.0, 70.0)]}))
    assert noise["on no set is the upper end of the gain's interval below 0"] is True
    worse = bars(published(tmp_path / "worse", {"icons": [outcome(69.0, 70.0, interval=0.5)]}))
    assert worse["on no set is the upper end of the gain's interval below 0 (icons)"] is False


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_a_loss_that_an_interval_notices_in_four_of_five_tries_is_noticed_in_so_many(seeds: int):
    reach = stats.t.ppf(0.975, seeds - 1) / seeds**0.5
    loss = noticed_loss(reach, seeds)  # of gains whose standard deviation is 1
    gains = np.random.default_rng(0).normal(-loss, 1, (20_000, seeds))
    highs = gains.mean(1) + reach * gains.std(1, ddof=1)
    assert (highs < 0).mean() == pytest.approx(0.8, abs=0.01)


def test_the_page_says_what_the_bar_on_the_intervals_can_notice(tmp_path: Path):
    seeds = [outcome(96.0, 92.0), outcome(97.0, 92.0), outcome(95.0, 92.0)]
    result = published(tmp_path, {"digits": seeds, "icons": [stopped("a sentence")]})
    assert "a true loss of 3.3 points on half of the sets, 3.3 on digits" in power(result)
    assert f"- {power(result)}" in section(tmp_path)
    single = published(tmp_path / "single", {"digits": seeds[:1]})
    assert power(single) == ""
