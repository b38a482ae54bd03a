"""The command `doctor`: is all as a coordinator needs it? And an archive for support."""

from __future__ import annotations

from datetime import UTC, datetime

from coordinator.commands.operator import picture
from coordinator.doctor.coordinator_checks import doctor_of
from coordinator.home.home import Home
from fedcervix.doctor.findings import look_through
from fedcervix.doctor.options import DoctorOptions
from fedcervix.doctor.telling import check_new, ended, pack, told


def doctor(home: Home, asked: DoctorOptions) -> None:
    """Look at all that can be known without changing anything. Raises RunError where the archive exists."""
    check_new(asked)
    now = datetime.now(UTC)
    looking = doctor_of(home, now, lambda: picture(home, whole=False))
    results = told(look_through(looking.checks(), set()), asked)
    if asked.into is not None:
        from coordinator.doctor.coordinator_bundle import coordinator_files  # it reads the source

        pack(results, asked, "coordinator", now, lambda: coordinator_files(looking, asked.allowed))
    ended(results, again=home.command("doctor"), then=home.command("status"), as_json=asked.as_json)
