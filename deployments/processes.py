"""The processes of one server: found by the mark in their environment, and ended when nothing else did."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from trygon.deployments.environment import RUNTIME_DIR_VARIABLE

POLL_S = 0.05


def own_processes(runtime_dir: Path) -> list[psutil.Process]:
    """Return the processes, of this user and other than this one, that carry the server's mark in their environment.

    A process inherits the mark from the server that started it and cannot come by it otherwise: pid files and ports
    lie after a crash, the environment does not. Zombies have none and are not returned.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid != os.getpid()
                and process.uids().real == os.getuid()
                and process.environ().get(RUNTIME_DIR_VARIABLE) == str(runtime_dir)
            ):
                found.append(process)
        except psutil.Error:  # gone meanwhile, or not ours to look at: either way not ours
            continue
    return found


def end_processes(
    runtime_dir: Path,
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[psutil.Process]:
    """Kill the server's processes until none is left; return those that outlive `timeout_s`.

    They are killed, not asked: whoever calls has asked before or finds the orphans of a crash, and none of Ray's
    processes has anything to save.
    """
    deadline = clock() + timeout_s
    while left := own_processes(runtime_dir):
        _kill(left)
        if clock() >= deadline:
            return left
        sleep(POLL_S)
    return []


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()  # psutil compares the start time first, so a pid that was given anew is safe
        except psutil.Error:
            continue
