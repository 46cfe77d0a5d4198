"""Events of the registry for other systems: a signed webhook, a Slack message, and what a project adds.

Their addresses come from the environment alone and are never written to a file or a log:

- ``REFLUX_WEBHOOK_URL`` and ``REFLUX_WEBHOOK_SECRET``: the event as JSON, signed according to standardwebhooks.com,
  whose libraries verify it in most languages. ``webhook-id`` belongs to the event and is the same in every attempt, so
  that a receiver can ignore repetitions. ``webhook-timestamp`` is the attempt's, in seconds, so that a receiver can
  refuse an old one. ``webhook-signature`` is ``v1,`` and the Base64 of HMAC-SHA256 over ``id.timestamp.body``. A secret
  that begins with ``whsec_`` is the Base64 of the key, any other is the key itself.
- ``REFLUX_SLACK_URL``: the message of a Slack incoming webhook, which Mattermost, Rocket.Chat and others accept too.

An address must be https, unless it is this machine's. An event is on disk before anything is sent, so a receiver that
is down or slow delays nothing and loses nothing: a background thread sends the event and retries for at most
``LINGER_S``; later commands, which spend ``LATER_S`` on it, send what is left, for ``KEEP_DAYS``. An event that a
receiver refuses for what is in it is set aside and counted; one that fails holds up no other.
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
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from tenacity import RetryError, Retrying, retry_if_result, stop_before_delay, wait_exponential

from reflux.components.core.artifacts import read_json, write_json
from reflux.components.core.errors import UserError
from reflux.components.core.registry import Registry
from reflux.components.core.runtime.journal import OUTBOX
from reflux.components.registry import client

HOOKS = OUTBOX / "hooks"
LINGER_S = 10.0
LATER_S = 1.0
KEEP_DAYS = 7

WEBHOOK_URL, WEBHOOK_SECRET, SLACK_URL = "REFLUX_WEBHOOK_URL", "REFLUX_WEBHOOK_SECRET", "REFLUX_SLACK_URL"

_THREAD = "reflux-hooks"
_ATTEMPT_S = 5.0
_FIRST_PAUSE_S = 0.25
_SECRET_PREFIX = "whsec_"  # noqa: S105 - only the prefix of one
_SLACK_CHARACTERS = 3000  # of a section's text
# Answers to what is in a message; others, such as 401, 404 or 500, are about the address, the secret or the receiver.
_REFUSALS = (400, 406, 411, 413, 414, 415, 422, 431)
_log = logging.getLogger(__name__)


EventName = Literal["promoted", "rejected", "awaiting approval", "rolled back", "failed"]


class Event(TypedDict):
    """The outcome of an attempt on a version.

    ``champion`` and ``previous`` are the aliases' versions afterwards; ``run_url`` is the decision's run in MLflow, or
    None if that is not a server; ``reason`` is the reason that a person gave, else the cause of the outcome; ``at`` is
    UTC in ISO 8601.
    """

    event: EventName
    model: str
    version: int
    champion: int | None
    previous: int | None
    by: str
    reason: str
    run_url: str | None
    at: str


@dataclass(frozen=True)
class Delivery:
    """An attempt to send an event.

    Attributes:
        id: of the event, the same in every attempt.
        event: what happened.
        now: the attempt's time, in seconds since 1970.
        key: that signs it, of the notifier's secret; empty if it has none.
    """

    id: str
    event: Event
    now: int
    key: bytes


Message = Callable[[Delivery], tuple[bytes, Mapping[str, str]]]


@dataclass(frozen=True)
class Notifier:
    """A kind of receiver; see :func:`notifier`."""

    variable: str
    message: Message
    secret: str | None


NOTIFIERS: Registry[Notifier] = Registry("notifiers")


def notifier(name: str, variable: str, secret: str | None = None) -> Callable[[Message], Message]:
    """Register what makes the message to a kind of receiver.

    The function gets a :class:`Delivery` and returns the body of a POST, and headers to send along.

    Args:
        name: in the log and in the names of the files that wait.
        variable: the environment's with the address; without it nothing is sent.
        secret: the environment's with the secret that signs the message, if one does.

    Raises:
        ValueError: the name is taken.
    """
    return NOTIFIERS.registers(name, lambda message: Notifier(variable, message, secret))


@notifier("webhook", WEBHOOK_URL, WEBHOOK_SECRET)
def webhook(delivery: Delivery) -> tuple[bytes, Mapping[str, str]]:
    """The event as JSON, signed."""
    body = json.dumps({"id": delivery.id, **delivery.event}).encode()
    proof = signature(delivery.key, delivery.id, delivery.now, body)
    headers = {"webhook-id": delivery.id, "webhook-timestamp": str(delivery.now), "webhook-signature": proof}
    return body, headers


@notifier("slack", SLACK_URL)
def _slack(delivery: Delivery) -> tuple[bytes, Mapping[str, str]]:
    return json.dumps(slack(delivery.event)).encode(), {}


@dataclass(frozen=True)
class Receiver:
    """A destination of events, and their form there."""

    name: str
    url: str
    key: bytes

    def message(self, id: str, event: Event, now: int) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of an attempt at ``now`` (seconds since 1970)."""
        headers = {"content-type": "application/json", "user-agent": "reflux"}
        body, own = NOTIFIERS[self.name].message(Delivery(id, event, now, self.key))
        return body, {**headers, **own}


def is_configured() -> bool:
    """Tell whether the environment names a receiver."""
    return any(os.environ.get(each.variable) for each in NOTIFIERS.values())


def notify(event: Event, id: str, outbox: Path = HOOKS) -> None:
    """Write an event to disk for each receiver, and start sending; ``id`` is the same if it is sent again.

    This never raises and never waits for a receiver: problems are warnings in the log.
    """
    try:
        for name, each in NOTIFIERS.items():
            if os.environ.get(each.variable):
                write_json(outbox / f"{time.time_ns()}-{id}.{name}.json", {"id": id, "event": event})
        for problem in problems():
            _log.warning("%s", problem)
        send(outbox)
    except Exception as error:
        _log.warning("The event %r of version %s is not sent: %s", event["event"], event["version"], error)


def send(outbox: Path = HOOKS, linger_s: float = LINGER_S) -> threading.Thread | None:
    """Send waiting events in a background thread, if any; at its end the process waits for it, ``linger_s`` at most."""
    if not waiting(outbox):
        return None
    deadline = time.monotonic() + linger_s
    thread = threading.Thread(target=_work, args=(outbox, deadline), name=_THREAD, daemon=True)
    thread.start()
    atexit.register(lambda: thread.join(max(0.0, deadline - time.monotonic())))
    return thread


def waiting(outbox: Path = HOOKS) -> list[Path]:
    """The files of events that were not delivered yet, oldest first."""
    return sorted(outbox.glob("[0-9]*.json"))  # not the files that are still being written


def refused(outbox: Path = HOOKS) -> list[Path]:
    """List the events of the last ``KEEP_DAYS`` that a receiver refused for what is in them, oldest first."""
    return sorted((outbox / "refused").glob("[0-9]*.json"))


def problems() -> list[str]:
    """A sentence on each receiver whose settings are unusable."""
    sentences = []
    for each in NOTIFIERS.values():
        url = os.environ.get(each.variable)
        if url and not is_safe(url):
            why = "is not https:// (http:// is accepted for this machine only): nothing is sent there."
            sentences.append(f"{each.variable} {why}")
        if each.secret and url and not os.environ.get(each.secret):
            sentences.append(f"{each.secret} is not set: set it, as nothing is sent unsigned.")
        elif each.secret and _key(os.environ.get(each.secret, "")) is None:
            why = "but what follows is not Base64: copy all of it."
            sentences.append(f"{each.secret} begins with {_SECRET_PREFIX}, {why}")
    return sentences


def receivers() -> Iterator[Receiver]:
    """The receivers whose settings in the environment are usable."""
    for name, each in NOTIFIERS.items():
        url, key = os.environ.get(each.variable), _key(os.environ.get(each.secret, "")) if each.secret else b""
        if url and is_safe(url) and (key or not each.secret):
            yield Receiver(name, url, key or b"")


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """Sign a body with its time, see the module's docstring."""
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def slack(event: Event) -> dict[str, Any]:
    """The Slack message of an event."""
    subject = f"{event['model']} version {event['version']}"
    headline = {
        "promoted": f"{subject} is the new champion",
        "rejected": f"{subject} was rejected",
        "awaiting approval": f"{subject} awaits approval: `reflux approve {event['version']} --reason …`",
        "rolled back": f"{event['model']} was rolled back to version {event['champion']}",
        "failed": f"The promotion of {subject} failed",
    }[event["event"]]
    in_production = "no champion" if event["champion"] is None else f"champion: version {event['champion']}"
    title = f"*{_escaped(headline)}*"
    footer = _escaped(f"{in_production}, by {event['by']}, {event['at']}")
    if event["run_url"]:
        footer += f", <{event['run_url']}|in MLflow>"
    room = _SLACK_CHARACTERS - len(title) - len(footer) - 2
    reason = re.sub(r"&[a-z]*…$", "…", client.fit(_escaped(event["reason"]), max(1, room)))
    text = "\n".join(filter(None, (title, reason, footer)))
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
    """Tell whether nobody can read what is sent to an address on its way."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http":
        return parts.scheme == "https" and bool(host)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _not_ours(record: logging.LogRecord) -> bool:
    """Filter urllib3's DEBUG messages: they have the path of a request, which is the secret of a Slack webhook."""
    return record.threadName != _THREAD


def _work(outbox: Path, deadline: float) -> None:
    """Send until nothing waits or the time is up; a lock keeps two processes from sending the same event."""
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
    """Try each waiting event once, oldest first; returns why one was not delivered, if that happened."""
    problem = None
    for receiver in receivers():
        for path in (path for path in waiting(outbox) if path.name.endswith(f".{receiver.name}.json")):
            try:
                kept = read_json(path)
                _post(receiver, kept["id"], kept["event"], deadline - time.monotonic())
            except (UserError, KeyError, TypeError):
                pass  # a damaged file: it is dropped
            except _Away as error:
                problem = f"the {receiver.name}: {error}"
                break  # the next event would wait just as long
            except _Refused as error:
                _log.warning("The %s refused an event of the registry (%s): it is in %s.", receiver.name, error, outbox)
                (outbox / "refused").mkdir(exist_ok=True)
                path.rename(outbox / "refused" / path.name)
                continue
            except _Failed as error:
                problem = f"the {receiver.name}: {error}"
                continue
            path.unlink(missing_ok=True)
    return problem


class _Failed(Exception):
    """An event was not accepted, and may be later. The text never contains the address."""


class _Away(_Failed):
    """The receiver does not answer."""


class _Refused(Exception):
    """An event will never be accepted, for what is in it."""


def _post(receiver: Receiver, id: str, event: Event, seconds: float) -> None:
    """Send an event once.

    Raises:
        _Failed: it was not accepted.
        _Refused: it never will be.
    """
    import requests

    if seconds <= 0:
        raise _Away("no time is left")
    try:
        body, headers = receiver.message(id, event, int(time.time()))
    except Exception as error:  # of a project's notifier
        raise _Failed(f"its message can't be made ({type(error).__name__})") from None
    try:
        # A redirect would pass the message on to another host, and the response's body is of no use.
        with requests.post(
            receiver.url,
            data=body,
            headers=headers,
            timeout=min(_ATTEMPT_S, seconds),
            allow_redirects=False,
            stream=True,
        ) as response:
            status = response.status_code
    except requests.RequestException as error:
        raise _Away(type(error).__name__) from None
    if not 200 <= status < 300:
        raise (_Refused if status in _REFUSALS else _Failed)(f"answers {status}")


def _forget_old(outbox: Path) -> None:
    oldest = time.time_ns() - KEEP_DAYS * 24 * 3600 * 10**9
    for path in refused(outbox):
        if path.name.split("-")[0] < str(oldest):
            path.unlink(missing_ok=True)
    for path in waiting(outbox):
        if path.name.split("-")[0] < str(oldest):
            path.unlink(missing_ok=True)
            _log.warning(
                "An event of the registry was not accepted for %d days and is dropped: %s", KEEP_DAYS, path.name
            )
