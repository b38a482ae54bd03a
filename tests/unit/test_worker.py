"""What the agent starts to train with: one process, or torch's launcher."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fedcervix.errors import ConfigError
from site_agent.home import HardwareSection, SiteHome, create
from site_agent.worker import launch, surroundings

ON_THIS_HOST = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
TWO_HOSTS = ("--nnodes=2", "--node-rank=0", "--master-addr=gpu1", "--master-port=29400")


def never() -> int:
    raise AssertionError("nobody asked for the number of GPUs")


def test_one_process_needs_no_launcher() -> None:
    assert HardwareSection().processes == 1
    assert launch(HardwareSection(), never) == []


def test_several_processes_are_started_by_torch_s_launcher_on_this_host() -> None:
    assert launch(HardwareSection(processes=3), never)[:5] == [*ON_THIS_HOST, "--nproc-per-node=3"]


@pytest.mark.parametrize(("gpus", "expected"), [(0, []), (1, []), (4, ["--nproc-per-node=4"])])
def test_no_number_of_processes_is_one_per_gpu(gpus: int, expected: list[str]) -> None:
    assert launch(HardwareSection(processes=0), lambda: gpus)[4:5] == expected


def test_on_the_cpu_nobody_counts_gpus() -> None:
    assert launch(HardwareSection(device="cpu", processes=0), never) == []


def test_several_hosts_are_described_by_their_engineer() -> None:
    found = launch(HardwareSection(processes=1, launcher=TWO_HOSTS), never)
    assert found[:7] == ["-m", "torch.distributed.run", *TWO_HOSTS, "--nproc-per-node=1"]
    assert "--standalone" not in found


@pytest.mark.skipif(not Path("/sys/class/net/lo").exists(), reason="the loopback interface has another name here")
def test_what_processes_on_one_host_say_to_one_another_stays_on_it() -> None:
    alone = surroundings({}, HardwareSection(processes=2))
    assert (alone["GLOO_SOCKET_IFNAME"], alone["NCCL_SOCKET_IFNAME"]) == ("lo", "lo")
    assert "GLOO_SOCKET_IFNAME" not in surroundings({}, HardwareSection(launcher=TWO_HOSTS))


def test_what_the_operator_set_is_kept() -> None:
    given = {"GLOO_SOCKET_IFNAME": "ib0", "OMP_NUM_THREADS": "4", "PATH": "/bin"}
    assert surroundings(given, HardwareSection(processes=2)).items() >= given.items()


@pytest.mark.parametrize("keys", [{"processes": -1}, {"processes": 65}, {"launcher": "--nnodes=2"}])
def test_a_wrong_number_of_processes_is_refused_by_name(tmp_path: Path, keys: dict[str, Any]) -> None:
    [(key, value)] = keys.items()
    home = SiteHome(tmp_path)
    home.config_file.write_text(f"[hardware]\n{key} = {value!r}\n")
    with pytest.raises(ConfigError, match=key):
        home.config()


def test_a_new_home_s_file_names_the_keys(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    create(home)
    text = home.config_file.read_text()
    uncommented = text.replace("# processes = 1", "processes = 2").replace(
        "# launcher = []", 'launcher = ["--nnodes=2"]'
    )
    home.config_file.write_text(uncommented)
    hardware = home.config().hardware
    assert (hardware.processes, hardware.launcher) == (2, ("--nnodes=2",))


def test_the_launcher_leaves_no_folder_behind() -> None:
    """It would make one in the folder for temporary files at every start, and a killed one never removes it."""
    assert launch(HardwareSection(processes=2), never)[-1] == f"--log-dir={os.devnull}"
