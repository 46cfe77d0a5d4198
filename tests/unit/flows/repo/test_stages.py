import pytest

from reflux.flows.repo.stages import failure, own_sentence

# What DVC 3.67 prints, word for word.
EXITED = "ERROR: failed to reproduce 'bad': failed to run: python -m reflux.components.bad, exited with {}"
BUSY = (
    "ERROR: failed to reproduce 'x': '/a/out' is busy, it is being blocked by:\n\n  (PID 1): /usr/bin/dvc repro x\n"
    "If there are no processes with such PIDs, you can manually remove '.dvc/tmp/rwlock' and try again."
)


def test_a_users_error_is_told_in_the_stages_words_and_not_retried():
    lines = ["> python -m reflux.components.bad", "Error: class 'bag' has one image: add more.", EXITED.format(2)]
    failed = failure("bad", 255, lines)
    assert str(failed) == "bad: class 'bag' has one image: add more."
    assert failed.user_error
    assert not failed.transient


def test_a_bug_is_told_by_the_last_line_of_its_traceback():
    lines = ["Traceback (most recent call last):", '  File "x.py"', "KeyError: 'a'", EXITED.format(1)]
    failed = failure("bad", 255, lines)
    assert failed.sentence == "KeyError: 'a'"
    assert not failed.user_error
    assert not failed.transient
    assert failed.tail == tuple(lines)


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (137, "SIGKILL"), (-15, "SIGTERM"), (139, "SIGSEGV")])
def test_a_killed_stage_may_be_tried_again(code, name):
    failed = failure("bad", 255, [EXITED.format(code)])
    assert failed.transient
    assert name in failed.sentence


def test_a_killed_dvc_or_supervisor_may_be_tried_again():
    assert failure("bad", 137, ["Running stage 'bad':"]).transient
    assert failure("bad", -9, []).transient


def test_a_held_lock_may_be_tried_again():
    failed = failure("x", 255, BUSY.splitlines())
    assert failed.transient
    assert failed.sentence == "another DVC command works in this project: wait until it ends, and run again"


def test_an_interrupted_stage_is_not_tried_again():
    assert not failure("bad", 255, [EXITED.format(130)]).user_error


def test_dvcs_own_failure_is_told_without_its_prefix():
    failed = failure("x", 255, ["ERROR: Stage 'x' not found inside 'dvc.yaml' file"])
    assert failed.sentence == "Stage 'x' not found inside 'dvc.yaml' file"
    assert not failed.transient


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("ERROR: unexpected error - [Errno 28] No space left on device: '/p/.dvc/cache/files'", "free some space"),
        ("ERROR: unexpected error - [Errno 13] Permission denied: '/p/.dvc/tmp/lock'", "no permission to write"),
    ],
)
def test_a_disk_that_dvc_cannot_write_is_a_user_error(line, sentence):
    failed = failure("x", 255, ["Running stage 'x':", line])
    assert failed.user_error
    assert not failed.transient
    assert sentence in failed.sentence


def test_silence_is_said_to_be_silence():
    assert failure("x", 1, []).sentence == "it left no message"


def test_a_sentence_may_go_on_over_several_lines():
    lines = [
        "Error: an older one",
        "Error: 22 images have no known label:",
        "- a.png",
        "- and 21 more",
        EXITED.format(2),
    ]
    assert own_sentence(lines) == "22 images have no known label:\n- a.png\n- and 21 more"


@pytest.mark.parametrize(
    ("line", "away"),
    [
        ('ERROR: unexpected error - Could not connect to the endpoint URL: "http://127.0.0.1:9/b"', True),
        ("ERROR: failed to reproduce 'x': missing data 'source': data/x", False),
        ("python: No module named dvc", False),
    ],
)
def test_only_a_remote_that_is_away_is_asked_again(line, away):
    failed = failure("x", 255, [line], restoring=True)
    assert failed.transient is failed.user_error is away
    assert ("DVC's remote does not return" in failed.sentence) is away
    assert not failure("x", 255, [line]).transient
