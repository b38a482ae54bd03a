"""What must hold before a site joins: nothing is written, and no invitation is used up, until all of it does.

A home folder belongs to one site of one federation. To join again as the same site is a renewal and allowed.
"""

from __future__ import annotations

import shlex

from fedcervix.errors import ConfigError, RunError
from fedcervix.transport import invitations
from site_agent.home import SiteHome

OF_A_COORDINATOR = "coordinator.toml"


def check_home(home: SiteHome, invited: invitations.Invitation) -> None:
    """Raise RunError or ConfigError unless the folder is free, or the home of the invited site."""
    folder = home.folder
    free = SiteHome(folder.with_name(f"{folder.name}-{invited.site}"))
    other = f"choose another folder: {free.command('join INVITATION.toml')}"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder", cause="a wrong --home", next_step=other)
    if (folder / OF_A_COORDINATOR).exists():
        raise RunError(f"{folder} is the home of a coordinator", cause="a wrong --home", next_step=other)
    if not home.key_file("site.crt").exists():
        return
    found = home.certificate().identity
    if (found.federation, found.name) != (invited.federation, invited.site):
        raise RunError(
            f"{folder} is the home of site {found.name} of federation {found.federation}; "
            f"the invitation is for site {invited.site} of federation {invited.federation}",
            cause="a wrong --home: keys and images of two sites would be mixed",
            next_step=other,
        )
    if home.pem("authority.crt").strip() != invited.authority_pem.strip():
        old = shlex.quote(str(home.key_file("site.crt")))
        raise RunError(
            f"{folder} belongs to another federation of the same name",
            cause="the coordinator was set up again, or the invitation comes from somebody else",
            next_step=f"ask the coordinator's operator; if it was set up again: mv {old} {old}.old, then join again",
        )
