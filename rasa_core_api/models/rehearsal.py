"""A model is tried before it serves: unpacked, checked and asked for some turns in a process of its own.

Whatever a file of the model does to the program that reads it - a crash, endless work, too much memory - happens
there. The process reads one JSON object from its input and writes one to its output: `{"ok": true}`, or
`{"error": "the reason", "kind": "UnsafeArchive"}`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import mmap
import os
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

from attrs import asdict, frozen
from twisted.logger import Logger

from rasa_core_api.apart import Ended, NotStarted, Overdue, ask_apart
from rasa_core_api.constants import ACTION_LISTEN, JSON
from rasa_core_api.events import ActionExecuted, Event, UserUttered
from rasa_core_api.exceptions import RasaCoreError, UnsafeArchive, UnsupportedModel
from rasa_core_api.models.archives import DEFAULT_LIMITS, Limits, unpack
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import load_generation
from rasa_core_api.models.nlu_part import beside_dialogue_model, nlu_directory, try_nlu
from rasa_core_api.trackers import Tracker
from rasa_core_api.trusted import class_finder

log = Logger()

_MEMORY = 4 << 30  # bytes of address space
_CPU = 600  # seconds; whoever waits gives up before that
_LONGEST_ANSWER = 64 * 1024
#: At low priority from the beginning: on a busy machine the imports alone would be felt by whoever talks.
PROGRAM = "import os; hasattr(os, 'nice') and os.nice(10); from rasa_core_api.models.rehearsal import main; main()"
_INTENTS = 20
_ACTIONS = 5
#: How the process calls refusals and failures of this machine; everything else is the model's fault.
_KINDS = {kind.__name__: kind for kind in (RasaCoreError, UnsafeArchive)}


@frozen
class Rehearsal:
    """What is to be tried. `into` does not exist yet; it holds the unpacked model afterwards.

    `public_key` (32 bytes, Base64) and `signature` (64 bytes, Base64, of the archive's bytes) are of Ed25519;
    with a key a signature must be there.
    """

    archive: str
    into: str
    trusted_modules: tuple[str, ...] = ()
    public_key: str | None = None
    signature: str | None = None
    limits: Limits = DEFAULT_LIMITS
    nlu: bool = False  # an NLU model rather than a dialogue model
    nlu_cache: str | None = None  # where NLU models that had to be trained again are kept


def rehearse(task: Rehearsal) -> None:
    """Verify, unpack, load and try. Raises `UnsupportedModel`; `into` is gone or incomplete then."""
    archive = Path(task.archive)
    if task.public_key is not None:
        verify(archive, task.public_key, task.signature)
    into = Path(task.into)
    unpack(archive, into, task.limits)
    nlu = nlu_directory(into) if task.nlu else beside_dialogue_model(into)
    if nlu is not None:
        try_nlu(nlu, None if task.nlu_cache is None else Path(task.nlu_cache))
    if not task.nlu:
        smoke(load_generation(into, find_class=class_finder(task.trusted_modules), fingerprint="rehearsal"))


def verify(archive: Path, public_key: str, signature: str | None) -> None:
    """Check the archive's signature. Raises `UnsafeArchive`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not signature:
        raise UnsafeArchive("the model carries no signature (header X-Model-Signature)")
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise UnsafeArchive("the model's signature is not Base64") from None
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    with archive.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise UnsafeArchive("the archive is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                key.verify(raw, bytes(content))
            except InvalidSignature:
                raise UnsafeArchive(
                    "the model's signature is wrong: it was changed, or signed by somebody else"
                ) from None


def smoke(generation: Generation) -> None:
    """Predict some turns: nothing said, and each of the first intents. Raises `UnsupportedModel`."""
    domain = generation.domain
    names = domain.action_names
    for intent in [None, *list(domain.intents)[:_INTENTS]]:
        tracker = Tracker("rehearsal", domain)
        events: list[Event] = [ActionExecuted(action_name=ACTION_LISTEN, timestamp=0.0)]
        if intent is not None:
            parsed = {"intent": {"name": intent, "confidence": 1.0}, "entities": [], "text": f"/{intent}"}
            events.append(UserUttered(text=f"/{intent}", parse_data=parsed, timestamp=0.0))
        tracker.extend(events)
        for _ in range(_ACTIONS):
            try:
                choice = generation.ensemble.choose(tracker)
            except Exception as error:
                raise UnsupportedModel(
                    f"the model fails to predict a turn (intent {intent!r}): {type(error).__name__}: {error}"
                ) from error
            if not 0 <= choice.index < len(names) or not math.isfinite(choice.confidence):
                raise UnsupportedModel(f"the model predicts nothing usable (intent {intent!r})")
            tracker.update(ActionExecuted(action_name=names[choice.index], timestamp=0.0))
            if names[choice.index] == ACTION_LISTEN:
                break


async def rehearse_apart(task: Rehearsal, reactor: Any, time_limit: float = 300.0) -> None:
    """`rehearse` in a process of its own, at low priority, ended after `time_limit` seconds.

    Raises `UnsupportedModel`, and `RasaCoreError` where no process can be started.
    """
    try:
        raw = await ask_apart(
            ["-c", PROGRAM], asdict(task), reactor, time_limit=time_limit, longest=_LONGEST_ANSWER
        )
    except NotStarted as error:
        raise RasaCoreError(f"no process can be started to try the model: {error}") from error
    except Overdue:
        raise UnsupportedModel(f"the model was not loaded within {time_limit:g} s") from None
    except Ended as error:
        log.debug("the rehearsal of a model wrote: {errors}", errors=error.errors)
        raise UnsupportedModel(f"the model crashed the process that tried it ({error})") from error
    try:
        answer = json.loads(raw)
    except ValueError:
        raise UnsupportedModel("the process that tried the model gave no answer") from None
    if answer.get("ok") is not True:
        kind = _KINDS.get(answer.get("kind"), UnsupportedModel)
        raise kind(str(answer.get("error", "the model cannot be served")))


def _limit_resources() -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(data: JSON) -> JSON:
    task = Rehearsal(**{**data, "trusted_modules": tuple(data["trusted_modules"]), "limits": Limits(**data["limits"])})
    try:
        rehearse(task)
    except RasaCoreError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except MemoryError:
        return {"error": "the model needs too much memory"}
    except RecursionError:
        return {"error": "the model is nested too deeply"}
    return {"ok": True}


def _end_with_parent() -> None:
    """Nobody else would end this process where the server is killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def main() -> None:
    """Entry point of the process."""
    _limit_resources()
    _end_with_parent()
    answer = _answer(json.loads(sys.stdin.buffer.read()))
    sys.stdout.write(json.dumps(answer))
