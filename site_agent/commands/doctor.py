"""The command `doctor`, which was called `check`: is all as a run needs it? And an archive for support."""

from __future__ import annotations

from datetime import UTC, datetime

from fedcervix.doctor.options import DoctorOptions
from fedcervix.doctor.telling import check_new, ended, pack, told
from site_agent.commands.display import Display
from site_agent.doctor.site_checks import doctor_of
from site_agent.home import SiteHome


def doctor(home: SiteHome, asked: DoctorOptions) -> None:
    """Try everything that can be known before round 1. Raises ConfigError where there is no home yet, RunError."""
    if not home.config_file.exists():
        home.config()
    check_new(asked)
    now = datetime.now(UTC)
    looking = doctor_of(home, now)
    results = told(looking.examine(Display().show), asked)
    if asked.into is not None:
        from site_agent.doctor.site_bundle import site_files  # it reads the source

        pack(results, asked, "site", now, lambda: site_files(looking, asked.allowed))
    ended(results, again=home.command("doctor"), then=home.command(), as_json=asked.as_json)
