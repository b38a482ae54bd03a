"""Flower moves and averages the same model, as its documentation tells a user to deploy it.

One SuperLink, a SuperNode for each site, `flwr run` with the app of peer_flower/. Both start their apps as processes of
their own (`--isolation subprocess`, the default): a ServerApp for the run, a ClientApp for every message. All lines to
the SuperLink are TLS with the federation's certificate; SuperNodes are not authenticated, and a SuperNode and its
ClientApp talk in the clear, which are the defaults too. Telemetry, the search for updates, and installing what an app
depends on are off. What it polls for, and how often, is left as it comes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.federations import Federation, Processes, free_ports, listening, toml
from benchmarks.peers import averaged_at, variables
from benchmarks.readings import Watch

APP = Path(__file__).with_name("peer_flower")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
NOTHING_INSTALLED = "--disable-runtime-dependency-installation"
PEMS = {"certfile": "server.crt", "keyfile": "server.key", "ca-certfile": "authority.crt"}
SUBMIT_S = 60.0


def flower(made: Federation, processes: Processes, installed: Path) -> tuple[list[float], Watch]:
    """Run all rounds; return when each was averaged, and what was read meanwhile."""
    folder, keys = made.folder / "flower", made.home.key_file("")
    port, *site_ports = free_ports(1 + len(made.sites))
    link = {"address": f"127.0.0.1:{port}", "root-certificates": str(keys / "authority.crt")}
    shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "config.toml").write_text(toml({"superlink": {"default": "benchmark"}, "superlink.benchmark": link}))
    own = variables(installed, FLWR_HOME=str(folder), **QUIET)
    programs = installed / "bin"

    pems = [f"--ssl-{part}={keys / name}" for part, name in PEMS.items()]
    at = ("--host=127.0.0.1", f"--port={port}")
    processes.run("coordinator", programs / "flower-superlink", *at, *pems, NOTHING_INSTALLED, variables=own)
    processes.until("coordinator", lambda: int(listening(port)))
    for name, site_port in zip(made.sites, site_ports, strict=True):
        to = (f"--superlink=127.0.0.1:{port}", f"--root-certificates={keys / 'authority.crt'}")
        at = ("--host=127.0.0.1", f"--port={site_port}")
        processes.run(name, programs / "flower-supernode", *to, *at, variables=own)

    times = folder / "averaged"
    asked = f"model='{made.base}' times='{times}' rounds={made.rounds} sites={len(made.sites)}"
    with Watch(processes.pids(), port) as watch:
        processes.run("submission", programs / "flwr", "run", folder / "app", "-c", asked, variables=own)
        processes.finish("submission", SUBMIT_S)
        return averaged_at(times, made.rounds, processes, "coordinator"), watch
