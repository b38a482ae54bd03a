"""NVIDIA FLARE moves and averages the same model, as its documentation tells a user to deploy it.

`nvflare provision` makes a startup kit for the server, every site and an administrator, with certificates of its own:
all lines are mutual TLS. Every participant is started by its kit's script; the administrator submits the job of
peer_nvflare/, and each participant runs it as a process of its own. The job has no persistor: no model is stored. How
often anybody looks for work is left as it comes. The kits are the defaults, but for the folder of the server's storage.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.federations import Federation, Processes, free_ports, listening
from benchmarks.peers import averaged_at, variables
from benchmarks.readings import Watch

JOB = Path(__file__).with_name("peer_nvflare") / "job.py"
NAME, SERVER, ADMINISTRATOR = "benchmark", "localhost", "admin@benchmark.org"
BUILDERS: dict[str, dict[str, Any]] = {
    "workspace.WorkspaceBuilder": {"template_file": ["master_template.yml"]},
    "static_file.StaticFileBuilder": {"config_folder": "config"},
    "cert.CertBuilder": {},
    "signature.SignatureBuilder": {},
}
STORAGE = "/tmp/nvflare"
PROVISION_S = 120.0
SUBMIT_S = 120.0


def nvflare(made: Federation, processes: Processes, installed: Path) -> tuple[list[float], Watch]:
    """Run all rounds; return when each was averaged, and what was read meanwhile."""
    folder, own = made.folder / "nvflare", variables(installed)
    folder.mkdir()
    [port] = free_ports(1)
    (folder / "project.yml").write_text(json.dumps(project(made.sites, port)))
    command = ("provision", "-p", folder / "project.yml", "-w", folder / "kits", "--force")
    processes.run("provision", installed / "bin" / "nvflare", *command, variables=own, folder=folder)
    processes.finish("provision", PROVISION_S)
    kits = folder / "kits" / NAME / "prod_00"
    default = (kits / SERVER / "local" / "resources.json.default").read_text()
    (kits / SERVER / "local" / "resources.json").write_text(default.replace(STORAGE, str(folder / "storage")))

    roles = {"coordinator": SERVER, **{name: name for name in made.sites}}
    for role, kit in roles.items():
        script = kits / kit / "startup" / "sub_start.sh"
        processes.run(role, "bash", script, "--once", variables=own, folder=folder)
        if role == "coordinator":
            processes.until(role, lambda: int(listening(port)))

    times = folder / "averaged"
    asked = (kits / ADMINISTRATOR, made.base, times, str(len(made.sites)), str(made.rounds))
    with Watch({role: processes.running[role].pid for role in roles}, port) as watch:
        processes.run("submission", installed / "bin" / "python", JOB, *asked, variables=own, folder=folder)
        processes.finish("submission", SUBMIT_S)
        return averaged_at(times, made.rounds, processes, "coordinator"), watch


def project(sites: tuple[str, ...], port: int) -> dict[str, Any]:
    """Return who takes part, as `nvflare provision -g` lays it out."""
    names = {SERVER: "server", **dict.fromkeys(sites, "client"), ADMINISTRATOR: "admin"}
    more: dict[str, dict[str, Any]] = {
        "server": {"fed_learn_port": port},
        "client": {},
        "admin": {"role": "project_admin"},
    }
    builders = [{"path": f"nvflare.lighter.impl.{path}", "args": given} for path, given in BUILDERS.items()]
    return {
        "api_version": 3,
        "name": NAME,
        "description": "rounds that only move and average",
        "participants": [{"name": name, "type": kind, "org": NAME, **more[kind]} for name, kind in names.items()],
        "builders": builders,
    }
