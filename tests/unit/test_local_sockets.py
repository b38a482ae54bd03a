"""A listener that only this machine reaches, however deep its folder lies."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coordinator.calls.local_sockets import NAME_BYTES_MAX, placed, reachable


@pytest.mark.parametrize("depth", [0, 4])
def test_a_socket_is_reached_however_long_its_path_is(tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*["a-folder-with-quite-a-long-name"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    if depth:
        assert len(str(folder)) > NAME_BYTES_MAX
    with placed(folder / "operator.sock") as path, socket.socket(socket.AF_UNIX) as listener:
        assert path == folder / "operator.sock"
        with reachable(path) as name:
            listener.bind(name)
        listener.listen()
        with reachable(path) as name, socket.socket(socket.AF_UNIX) as caller:
            caller.connect(name)
    assert not path.exists()


def test_the_socket_of_a_process_that_was_killed_is_in_nobody_s_way(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / "o"))
    with placed(tmp_path / "o") as path:
        assert not path.exists()


def test_where_the_file_system_takes_no_socket_it_lies_in_a_private_folder() -> None:
    with placed(Path("/proc/operator.sock")) as path:
        assert path.parent != Path("/proc")
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()
