"""A server of one's own for the time of a session, in a process beside this one."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rasa_core_api.exceptions import TrainingFailed
from rasa_core_api.training.interactive import Api

#: The program `run`, which stops when its standard input ends: also where whoever started it was killed.
_ATTACHED = """
import os, signal, sys, threading
def watch():
    while os.read(0, 512):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
from rasa_core_api.run import main
sys.exit(main(sys.argv[1:]))
"""

#: Seconds that the server may take to answer first, and to end.
START, END = 60.0, 25.0


@contextmanager
def local_server(core: Path, more: Sequence[str]) -> Iterator[Api]:
    """The API of a server for the model `core`, with the options `more` of `run`; it ends with the context.

    Raises `TrainingFailed` where it does not start; what it says of that is on standard error.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    token = secrets.token_hex(16)  # the server listens on all addresses
    command = [sys.executable, "-c", _ATTACHED, "--enable_api", "-d", str(core), "-p", str(port),
               "-c", "rest", "--auth_token", token, "--quiet", "-o", "", *more]  # fmt: skip
    # a session of its own: control-C is for who teaches
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        api = Api(f"http://127.0.0.1:{port}", token)
        _wait(process, api)
        yield api
    finally:
        process.terminate()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _wait(process: subprocess.Popen[bytes], api: Api) -> None:
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            api.call("GET", "/version")
        except TrainingFailed:
            time.sleep(0.05)
        else:
            return
    raise TrainingFailed("the local server did not start; its own message says why")
