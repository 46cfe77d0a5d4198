"""Tells other systems what became of a version: a signed webhook and a Slack message.

Where they go is said by the environment alone, and never written to a file or a log:

- ``REFLUX_WEBHOOK_URL`` and ``REFLUX_WEBHOOK_SECRET``: the event as JSON, signed as standardwebhooks.com has it, whose
  libraries verify it in most languages. ``webhook-id`` is the event's and the same in every attempt: whoever has
  seen it ignores the repetition. ``webhook-timestamp`` is the attempt's, in seconds: whoever finds it old refuses it.
  ``webhook-signature`` is ``v1,`` and the Base64 of HMAC-SHA256 over ``id.timestamp.body``. A secret that begins with
  ``whsec_`` is the Base64 of the key, any other the key itself.
- ``REFLUX_SLACK_URL``: the message of a Slack incoming webhook, which Mattermost, Rocket.Chat and others take too.

An address must be https, unless it is this machine's. An event is on the disk before anything is sent, so that a
receiver that is down or slow holds nothing up and loses nothing: a background thread sends it and tries again, for
``LINGER_S`` at most; what it could not send is sent by later commands, which take ``LATER_S`` for it, for
``KEEP_DAYS``.
"""

import atexit
import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from tenacity import RetryError, Retrying, retry_if_result, stop_before_delay, wait_exponential

from components.core.artifacts import read_json, write_json
from components.core.errors import UserError
from components.core.runtime.journal import OUTBOX

HOOKS = OUTBOX / "hooks"
LINGER_S = 10.0
LATER_S = 1.0
KEEP_DAYS = 7

WEBHOOK_URL, WEBHOOK_SECRET, SLACK_URL = "REFLUX_WEBHOOK_URL", "REFLUX_WEBHOOK_SECRET", "REFLUX_SLACK_URL"

_THREAD = "reflux-hooks"
_ATTEMPT_S = 5.0
_FIRST_PAUSE_S = 0.25
_SECRET_PREFIX = "whsec_"  # noqa: S105 - not one, but how one begins
_log = logging.getLogger(__name__)


What = Literal["promoted", "rejected", "awaiting approval", "rolled back", "failed"]


class Event(TypedDict):
    """What became of a version.

    ``champion`` and ``previous`` are the aliases' versions afterwards; ``run_url`` is the decision's run in MLflow, or
    None where that is no server; ``reason`` is what the person said who did it, else why it came to that; ``at`` is UTC
    in ISO 8601.
    """

    event: What
    model: str
    version: int
    champion: int | None
    previous: int | None
    by: str
    reason: str
    run_url: str | None
    at: str


@dataclass(frozen=True)
class Receiver:
    """Where events go, and in what form."""

    name: Literal["webhook", "slack"]
    url: str
    key: bytes

    def message(self, id: str, event: Event, now: int) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of an attempt at ``now`` (seconds since 1970)."""
        headers = {"content-type": "application/json", "user-agent": "reflux"}
        if self.name == "slack":
            return json.dumps(slack(event)).encode(), headers
        body = json.dumps({"id": id, **event}).encode()
        headers |= {"webhook-id": id, "webhook-timestamp": str(now)}
        return body, headers | {"webhook-signature": signature(self.key, id, now, body)}


def is_configured() -> bool:
    """Whether the environment names anybody to tell."""
    return bool(os.environ.get(WEBHOOK_URL) or os.environ.get(SLACK_URL))


def notify(event: Event, id: str, outbox: Path = HOOKS) -> None:
    """Note an event for each receiver, and begin to send.

    It never raises and waits for no receiver: what goes wrong is a warning in the log.

    Args:
        event: what happened.
        id: of the event, the same if it is told again.
        outbox: where events wait.
    """
    try:
        for name, variable in (("webhook", WEBHOOK_URL), ("slack", SLACK_URL)):
            if os.environ.get(variable):
                write_json(outbox / f"{time.time_ns()}-{id}.{name}.json", {"id": id, "event": event})
        for problem in problems():
            _log.warning("%s", problem)
        send(outbox)
    except Exception as error:
        _log.warning("The event %r of version %s is not told: %s", event["event"], event["version"], error)


def send(outbox: Path = HOOKS, linger_s: float = LINGER_S) -> threading.Thread | None:
    """Send what waits, in the background; a process that ends waits for it, ``linger_s`` at most.

    Returns:
        The thread that sends, or None when nothing waits.
    """
    if not waiting(outbox):
        return None
    deadline = time.monotonic() + linger_s
    thread = threading.Thread(target=_work, args=(outbox, deadline), name=_THREAD, daemon=True)
    thread.start()
    atexit.register(lambda: thread.join(max(0.0, deadline - time.monotonic())))
    return thread


def waiting(outbox: Path = HOOKS) -> list[Path]:
    """The events that nobody has taken yet, oldest first."""
    return sorted(outbox.glob("[0-9]*.json"))  # and not those that are being written


def problems() -> list[str]:
    """A sentence on each receiver whose settings can't be used."""
    found = []
    for variable in (WEBHOOK_URL, SLACK_URL):
        url = os.environ.get(variable)
        if url and not is_safe(url):
            found.append(
                f"{variable} is not https:// (http:// is taken for this machine alone): nothing is sent there."
            )
    if os.environ.get(WEBHOOK_URL) and not os.environ.get(WEBHOOK_SECRET):
        found.append(f"{WEBHOOK_SECRET} is not set: set it, for nothing is sent unsigned.")
    elif _key(os.environ.get(WEBHOOK_SECRET, "")) is None:
        found.append(f"{WEBHOOK_SECRET} begins with {_SECRET_PREFIX}, but what follows is no Base64: copy it whole.")
    return found


def receivers() -> Iterator[Receiver]:
    """Those that the environment names rightly."""
    url, key = os.environ.get(WEBHOOK_URL), _key(os.environ.get(WEBHOOK_SECRET, ""))
    if url and key and is_safe(url):
        yield Receiver("webhook", url, key)
    url = os.environ.get(SLACK_URL)
    if url and is_safe(url):
        yield Receiver("slack", url, b"")


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """What proves to a receiver who sent a body and when; see the module."""
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def slack(event: Event) -> dict[str, Any]:
    """An event as Slack shows it."""
    subject = f"{event['model']} version {event['version']}"
    headline = {
        "promoted": f"{subject} is the new champion",
        "rejected": f"{subject} was rejected",
        "awaiting approval": f"{subject} awaits approval: `reflux approve {event['version']} --reason …`",
        "rolled back": f"{event['model']} was rolled back to version {event['champion']}",
        "failed": f"The promotion of {subject} failed",
    }[event["event"]]
    in_production = "no champion" if event["champion"] is None else f"champion: version {event['champion']}"
    lines = [f"*{_escaped(headline)}*"]
    if event["reason"]:
        lines.append(_escaped(event["reason"]))
    footer = _escaped(f"{in_production}, by {event['by']}, {event['at']}")
    if event["run_url"]:
        footer += f", <{event['run_url']}|in MLflow>"
    text = "\n".join([*lines, footer])
    return {"text": headline, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _key(secret: str) -> bytes | None:
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        return None


def is_safe(url: str) -> bool:
    """Whether what is sent there is read by nobody on the way."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http":
        return parts.scheme == "https" and bool(host)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _not_ours(record: logging.LogRecord) -> bool:
    """At the level DEBUG urllib3 logs the path of a request, which for Slack is the secret."""
    return record.threadName != _THREAD


def _work(outbox: Path, deadline: float) -> None:
    """Send until nothing waits or the time is up; one process at a time, so that nothing is sent twice."""
    logging.getLogger("urllib3.connectionpool").addFilter(_not_ours)
    try:
        with FileLock(outbox / ".lock", timeout=max(0.0, deadline - time.monotonic())):
            _forget_old(outbox)
            attempts = Retrying(
                retry=retry_if_result(bool),
                wait=wait_exponential(multiplier=_FIRST_PAUSE_S),
                stop=stop_before_delay(max(0.0, deadline - time.monotonic())),
            )
            attempts(_round, outbox, deadline)
    except RetryError as error:
        problem = error.last_attempt.result()
        _log.warning("An event of the registry waits in %s (%s): the next command sends it.", outbox, problem)
    except Timeout:
        pass  # another process is sending
    except Exception as error:
        _log.warning("Events of the registry wait in %s (%s).", outbox, type(error).__name__)


def _round(outbox: Path, deadline: float) -> str | None:
    """One attempt for each event that waits, oldest first; what kept one of them from being sent, if anything did."""
    problem = None
    for receiver in receivers():
        for path in (path for path in waiting(outbox) if path.name.endswith(f".{receiver.name}.json")):
            try:
                kept = read_json(path)
                failed = _post(receiver, kept["id"], kept["event"], deadline - time.monotonic())
            except (UserError, KeyError, TypeError):
                failed = None  # damaged: it can't be told any more
            if failed:
                problem = f"the {receiver.name}: {failed}"
                break  # the next would wait just as long
            path.unlink(missing_ok=True)
    return problem


def _post(receiver: Receiver, id: str, event: Event, seconds: float) -> str | None:
    """Send once; why it was not taken, else None. What is said never holds the address."""
    import requests

    if seconds <= 0:
        return "no time is left"
    body, headers = receiver.message(id, event, int(time.time()))
    try:
        # A redirect would hand the message to somebody else, and the answer's body is of no use.
        with requests.post(
            receiver.url,
            data=body,
            headers=headers,
            timeout=min(_ATTEMPT_S, seconds),
            allow_redirects=False,
            stream=True,
        ) as answer:
            return None if 200 <= answer.status_code < 300 else f"answers {answer.status_code}"
    except requests.RequestException as error:
        return type(error).__name__


def _forget_old(outbox: Path) -> None:
    oldest = time.time_ns() - KEEP_DAYS * 24 * 3600 * 10**9
    for path in waiting(outbox):
        if path.name.split("-")[0] < str(oldest):
            path.unlink(missing_ok=True)
            _log.warning("An event of the registry was not taken for %d days and is dropped: %s", KEEP_DAYS, path.name)
