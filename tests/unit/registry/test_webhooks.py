"""Webhooks against a real HTTP server on this machine, which may be down, slow or answer with errors."""

import base64
import hashlib
import hmac
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflux.components.registry import webhooks
from tests.receiver import Receiver
from tests.workspaces import PACKAGE, ROOT

SECRET = "a secret of the team"
EVENT: webhooks.Event = {
    "event": "promoted",
    "model": "clothes-student",
    "version": 3,
    "champion": 3,
    "previous": 2,
    "by": "ada@host",
    "reason": "Accuracy 0.9 reaches the minimum of 0.8 <and> more.",
    "run_url": "https://mlflow.example/#/experiments/1/runs/abc",
    "at": "2026-01-02T03:04:05.000+00:00",
}


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def outbox(tmp_path, monkeypatch, receiver) -> Iterator[Path]:
    for name in (webhooks.WEBHOOK_URL, webhooks.WEBHOOK_SECRET, webhooks.SLACK_URL):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(webhooks.WEBHOOK_URL, f"http://127.0.0.1:{receiver.port}/hook?token=hidden")
    monkeypatch.setenv(webhooks.WEBHOOK_SECRET, SECRET)
    yield tmp_path / "hooks"
    for thread in threading.enumerate():
        if thread.name == webhooks._THREAD:
            thread.join(30)  # one that is left would send to the next test's receiver


def waiting(outbox: Path) -> list[str]:
    return sorted(path.name for path in outbox.glob("*.json"))


def until_empty(outbox: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while waiting(outbox):
        assert time.monotonic() < deadline, waiting(outbox)
        time.sleep(0.02)


def proof(headers: dict[str, str], body: bytes, secret: bytes = SECRET.encode()) -> str:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def test_an_event_arrives_signed(outbox, receiver):
    webhooks.notify(EVENT, "msg_1", outbox)
    until_empty(outbox)
    ((headers, body),) = receiver.got
    assert headers["webhook-signature"] == proof(headers, body)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert json.loads(body) == {"id": headers["webhook-id"], **EVENT}
    assert SECRET not in str(receiver.got)


def test_the_signature_is_that_of_the_standard():
    # The example of github.com/standard-webhooks/standard-webhooks, in the tests of its libraries.
    key = webhooks._key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert webhooks.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_500_is_tried_again_under_the_same_id(outbox, receiver):
    receiver.statuses = [500, 503]
    webhooks.notify(EVENT, "msg_1", outbox)
    until_empty(outbox)
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert all(headers["webhook-signature"] == proof(headers, body) for headers, body in receiver.got)


def test_a_redirect_is_not_followed(outbox, receiver):
    receiver.statuses = [302]
    webhooks.notify(EVENT, "msg_1", outbox)
    until_empty(outbox)
    assert len(receiver.got) == 2


def test_a_slow_receiver_holds_nobody_up(outbox, receiver):
    receiver.delay_s = 3  # an attempt may take 5 s
    began = time.monotonic()
    webhooks.notify(EVENT, "msg_1", outbox)
    assert time.monotonic() - began < receiver.delay_s
    assert waiting(outbox)
    until_empty(outbox)


def test_what_a_receiver_that_is_down_missed_is_sent_by_the_next_command_in_order(outbox, receiver, caplog):
    port = receiver.port
    receiver.close()
    for version in (3, 4):
        webhooks.notify(EVENT | {"version": version}, f"msg_{version}", outbox)
    webhooks.send(outbox, linger_s=0.1).join()
    assert len(waiting(outbox)) == 2
    assert not any("hidden" in record.getMessage() for record in caplog.records)

    back = Receiver(port)
    try:
        webhooks.send(outbox)
        until_empty(outbox)
        assert [json.loads(body)["version"] for _, body in back.got] == [3, 4]
    finally:
        back.close()


def test_a_process_ends_within_the_stated_time_and_leaves_the_event_on_disk(outbox, receiver, tmp_path):
    receiver.delay_s = 90
    code = (
        "from functools import partial\n"
        "from reflux.components.registry import webhooks\n"
        "webhooks.send = partial(webhooks.send, linger_s=1)\n"
        f"webhooks.notify({EVENT!r}, 'msg_1', webhooks.Path({str(outbox)!r}))\n"
    )
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT / PACKAGE)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < receiver.delay_s
    assert len(waiting(outbox)) == 1
    assert "hidden" not in done.stderr
    assert SECRET not in done.stderr


def test_slack_gets_its_own_form_and_its_address_is_in_no_log(outbox, receiver, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv(webhooks.WEBHOOK_URL)
    monkeypatch.setenv(webhooks.SLACK_URL, f"http://localhost:{receiver.port}/services/hidden")
    webhooks.notify(EVENT, "msg_1", outbox)
    until_empty(outbox)
    ((headers, body),) = receiver.got
    message = json.loads(body)
    assert message["text"] == "clothes-student version 3 is the new champion"
    assert message["blocks"][0]["text"] == {
        "type": "mrkdwn",
        "text": (
            "*clothes-student version 3 is the new champion*\n"
            "Accuracy 0.9 reaches the minimum of 0.8 &lt;and&gt; more.\n"
            "champion: version 3, by ada@host, 2026-01-02T03:04:05.000+00:00, "
            "<https://mlflow.example/#/experiments/1/runs/abc|in MLflow>"
        ),
    }
    assert "webhook-signature" not in headers
    assert "hidden" not in caplog.text


@pytest.mark.parametrize(
    ("event", "headline"),
    [
        ("rejected", "clothes-student version 3 was rejected"),
        ("awaiting approval", "clothes-student version 3 awaits approval: `reflux approve 3 --reason …`"),
        ("rolled back", "clothes-student was rolled back to version 2"),
        ("failed", "The promotion of clothes-student version 3 failed"),
    ],
)
def test_slack_says_each_event_in_a_sentence(event, headline):
    assert webhooks.slack(EVENT | {"event": event, "champion": 2})["text"] == headline


def test_one_receiver_that_is_down_does_not_keep_the_other_waiting(outbox, receiver, monkeypatch):
    monkeypatch.setenv(webhooks.SLACK_URL, f"http://127.0.0.1:{receiver.port}/slack")
    monkeypatch.setenv(webhooks.WEBHOOK_URL, "http://127.0.0.1:9/hook")
    webhooks.notify(EVENT, "msg_1", outbox)
    deadline = time.monotonic() + 20
    while not receiver.got:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [name for name in waiting(outbox) if "webhook" in name]


@pytest.mark.parametrize(
    "url",
    ["http://hooks.example/x", "ftp://127.0.0.1/x", "hooks.example/x", "https:///x", "http://127.0.0.1.evil.example/"],
)
def test_an_address_that_others_could_read_gets_nothing(outbox, monkeypatch, url, caplog):
    monkeypatch.setenv(webhooks.WEBHOOK_URL, url)
    assert list(webhooks.receivers()) == []
    webhooks.notify(EVENT, "msg_1", outbox)
    assert [record.getMessage() for record in caplog.records] == webhooks.problems()
    assert "REFLUX_WEBHOOK_URL is not https://" in webhooks.problems()[0]


def test_without_a_secret_nothing_is_sent(outbox, monkeypatch):
    assert webhooks.problems() == []
    monkeypatch.delenv(webhooks.WEBHOOK_SECRET)
    assert list(webhooks.receivers()) == []
    assert "REFLUX_WEBHOOK_SECRET is not set" in webhooks.problems()[0]
    monkeypatch.setenv(webhooks.WEBHOOK_SECRET, "whsec_no base64!")
    assert list(webhooks.receivers()) == []
    assert "what follows is not Base64" in webhooks.problems()[0]


def test_where_nobody_listens_nothing_is_noted(outbox, monkeypatch):
    monkeypatch.delenv(webhooks.WEBHOOK_URL)
    webhooks.notify(EVENT, "msg_1", outbox)
    assert not outbox.exists()


def test_a_disk_that_takes_nothing_is_a_warning(outbox, caplog):
    outbox.write_text("a file where the folder should be")
    webhooks.notify(EVENT, "msg_1", outbox)
    assert "The event 'promoted' of version 3 is not sent" in caplog.text


def test_what_nobody_took_for_a_week_is_dropped_and_a_damaged_event_too(outbox, receiver, caplog):
    outbox.mkdir()
    week_old = time.time_ns() - (webhooks.KEEP_DAYS * 24 + 1) * 3600 * 10**9
    (outbox / f"{week_old}-msg_1.webhook.json").write_text(json.dumps({"id": "msg_1", "event": EVENT}))
    (outbox / f"{time.time_ns()}-msg_2.webhook.json").write_text("{")
    webhooks.send(outbox).join()
    assert waiting(outbox) == []
    assert receiver.got == []
    assert "was not accepted for 7 days" in caplog.text


def test_what_is_on_the_disk_holds_no_address_and_no_secret(outbox, receiver):
    receiver.delay_s = 1
    webhooks.notify(EVENT, "msg_1", outbox)
    (kept,) = outbox.glob("*.json")
    text = kept.read_text()
    until_empty(outbox)
    assert "hidden" not in text
    assert SECRET not in text


def test_a_notifier_that_fails_keeps_its_event_and_no_other(outbox, receiver, monkeypatch):
    monkeypatch.setitem(webhooks.NOTIFIERS, "mine", webhooks.Notifier("MINE_URL", lambda _: {}["hidden"], None))
    monkeypatch.setenv("MINE_URL", f"http://127.0.0.1:{receiver.port}/")
    monkeypatch.setattr(webhooks, "send", lambda *_: None)
    webhooks.notify(EVENT, "msg_1", outbox)
    problem = webhooks._round(outbox, time.monotonic() + 20)
    assert problem == "the mine: its message can't be made (KeyError)"
    assert [name.split(".")[1] for name in waiting(outbox)] == ["mine"]
    assert len(receiver.got) == 1


def test_a_notifier_with_a_secret_sends_nothing_without_it(outbox, monkeypatch):
    monkeypatch.setitem(webhooks.NOTIFIERS, "mine", webhooks.Notifier("MINE_URL", lambda each: (each.key, {}), "MINE"))
    monkeypatch.setenv("MINE_URL", "https://mine.example/")
    assert "mine" not in [each.name for each in webhooks.receivers()]
    assert webhooks.problems() == ["MINE is not set: set it, as nothing is sent unsigned."]
    monkeypatch.setenv("MINE", "key")
    assert list(webhooks.receivers())[-1].message("msg_1", EVENT, 0)[0] == b"key"


@pytest.mark.parametrize(("status", "kept"), [(400, "refused"), (413, "refused"), (404, "waiting"), (500, "waiting")])
def test_an_event_that_is_not_taken_holds_up_no_other(outbox, receiver, monkeypatch, status, kept):
    monkeypatch.setattr(webhooks, "send", lambda *_: None)
    for version in (3, 4):
        webhooks.notify(EVENT | {"version": version}, f"msg_{version}", outbox)
    receiver.statuses = [status]
    webhooks._round(outbox, time.monotonic() + 20)
    assert [json.loads(body)["version"] for _, body in receiver.got] == [3, 4]
    left = {"waiting": webhooks.waiting(outbox), "refused": webhooks.refused(outbox)}
    assert {where: len(files) for where, files in left.items() if files} == {kept: 1}
    webhooks._round(outbox, time.monotonic() + 20)
    assert len(receiver.got) == (2 if kept == "refused" else 3)
    assert webhooks.waiting(outbox) == []


@pytest.mark.parametrize("reason", ["x" * 9000, "<&>" * 3000])
def test_a_text_is_cut_to_what_slack_takes(reason):
    (block,) = webhooks.slack(EVENT | {"reason": reason})["blocks"]
    text = block["text"]["text"]
    assert 2990 < len(text) <= 3000
    cut = text.splitlines()[1]
    assert cut.endswith(("x…", "&lt;…", "&amp;…", "&gt;…"))
    assert "in MLflow" in text
