"""Who holds a home folder: one process at a time, and nobody once it has ended, however it ended."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from coordinator.commands import commands
from coordinator.commands.operator import ask
from coordinator.home.home import Home, RunningProcess
from fedcervix.errors import ConfigError, RunError, StorageError
from fedcervix.transport import rpc
from fedcervix.transport.address import Address
from fedcervix.wire import federation_pb2 as wire
from site_agent.home import SiteHome

HOLDER = """
import subprocess, sys
from pathlib import Path
from {module} import {name} as Home
with Home(Path(sys.argv[1])).locked():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    print(child.pid, flush=True)
    sys.stdin.read()
"""
"""a process that holds a home folder, and has one of its own, as an agent has a worker"""
ROLES = {"coordinator": Home, "site": SiteHome}


@contextmanager
def holder(home: Home | SiteHome) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that holds a home folder, and the number of its child."""
    script = HOLDER.format(module=type(home).__module__, name=type(home).__name__)
    command = [sys.executable, "-c", script, str(home.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_process_holds_nothing_even_while_one_that_it_started_lives(role: str, tmp_path: Path) -> None:
    home = ROLES[role](tmp_path)
    with holder(home) as (process, child):
        with pytest.raises(RunError, match="is already running on"), home.locked():
            pass
        os.kill(child, signal.SIGSTOP)  # it hangs, and so outlives its parent
        process.kill()
        process.wait()
        try:
            with home.locked():
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_coordinator_that_was_killed_is_not_taken_for_running_when_its_number_was_given_to_another(
    tmp_path: Path,
) -> None:
    """After a reboot, or in a container, where numbers are few."""
    home = Home(tmp_path)
    home.running.write_text(json.dumps({"pid": os.getpid(), "port": 8443}))
    assert home.read_running() is None
    with holder(home):
        home.write_running(os.getpid(), Address("0.0.0.0", 8443), tmp_path / "operator.sock")
        found = RunningProcess(os.getpid(), 8443, "localhost:8443", str(tmp_path / "operator.sock"))
        assert home.read_running() == found


def test_a_coordinator_that_cannot_say_where_it_listens_listens_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of a server that nobody stops would outlive the error that is shown."""
    serving, engine = MagicMock(port=8443, operator=tmp_path / "operator.sock"), MagicMock()
    for name in ("Service", "Registry", "Control"):
        monkeypatch.setattr(commands, name, MagicMock())
    monkeypatch.setattr(commands, "Serving", lambda *_: serving)
    with pytest.raises(StorageError):
        commands._serve(Home(tmp_path / "gone"), engine, MagicMock(), Address("0.0.0.0", 8443))
    assert (serving.stop.called, engine.stop.called, engine.drive.called) == (True, True, False)


def test_a_coordinator_of_an_earlier_version_that_still_runs_is_named(tmp_path: Path) -> None:
    """A new version was installed, and the service not ended: its commands were once calls on the port."""
    home = Home(tmp_path)
    with home.locked():
        home.running.write_text(json.dumps({"pid": 1234, "port": 8443, "address": "localhost:8443"}))
        with pytest.raises(RunError, match=r"pid 1234\) does not understand the commands of this version"):
            ask(home, rpc.OVERVIEW, wire.OverviewRequest())


def test_asking_whether_a_coordinator_runs_does_not_get_into_the_way_of_its_start(tmp_path: Path) -> None:
    home, started = Home(tmp_path), threading.Event()

    def start() -> None:
        with home.locked():
            started.set()

    with (tmp_path / "running.lock").open("a") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as `read_running` does for an instant
        thread = threading.Thread(target=start)
        thread.start()
        assert not started.wait(0.1)
        fcntl.flock(asking, fcntl.LOCK_UN)
        assert started.wait(10)
        thread.join()


@pytest.mark.parametrize("use", ["config", "certificate"])
def test_a_coordinators_home_is_not_asked_to_join(use: str, tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").touch()
    with pytest.raises(ConfigError, match="is a coordinator's home, not a site's") as refused:
        getattr(SiteHome(tmp_path), use)()
    assert refused.value.next_step.startswith(f"coordinator --home {tmp_path} status")
