"""Servers of a bench in processes of their own."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from engine.errors import DependencyUnavailable

_START_S, _END_S, _PAUSE_S = 120.0, 10.0, 0.2
# Requests run side by side, and one thread each is what all of them are given.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def port_printing(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m module` that prints its port when it is ready and ends with its standard input; yields its address.

    Raises DependencyUnavailable when it ends before that.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | _ONE_THREAD,
    )
    try:
        port = process.stdout.readline().strip() if process.stdout else ""
        if not port:
            raise DependencyUnavailable(f"{module} ended before it was ready; its message is above")
        yield process, f"127.0.0.1:{port}"
    finally:
        process.communicate()


@contextmanager
def http_serving(
    module: str, argument: str, address: str, probe: tuple[str, bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module argument` that serves HTTP at an address, once it has answered a probe: a path and JSON.

    It is to end with its standard input, for when this process is killed. It and all processes that it has started have
    ended when the context has.

    Raises DependencyUnavailable when it ends early or takes two minutes.
    """
    # A group of its own, so that what it starts can be ended with it.
    process = subprocess.Popen(
        [sys.executable, "-m", module, argument],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
        env=os.environ | _ONE_THREAD,
        start_new_session=True,
    )
    try:
        _wait_for_answer(process, module, f"http://{address}{probe[0]}", probe[1])
        yield process
    finally:
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        psutil.wait_procs(started, _END_S)


def _wait_for_answer(process: subprocess.Popen[bytes], module: str, url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    # No proxy of the environment has a say in what is asked of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise DependencyUnavailable(f"{module} ended before it was ready; its message is above")
        try:
            with opener.open(request, timeout=_END_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_PAUSE_S)
    raise DependencyUnavailable(f"{module} was not ready within {_START_S:.0f} seconds")
