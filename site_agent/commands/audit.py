"""The command `audit`: what the last update of a run tells about who was trained on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools

from fedcervix.errors import RunError
from fedcervix.runtime.printing import say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.commands.display import Display
from site_agent.commands.open_images import open_images
from site_agent.commands.setting import machine_of, site_name
from site_agent.federation import shown
from site_agent.home import SiteHome
from site_agent.network.precision import resolve_precision
from site_agent.store.audit_sheets import AuditSheet, held_back, verdict
from site_agent.store.run_store import StoredRun, federation_of, last_federation
from site_agent.store.task_results import TrainResult
from site_agent.training.context import TrainingContext
from site_agent.training.update_audit import Update
from site_agent.training.update_audit import audit as made


def audit(home: SiteHome, run: str | None) -> None:
    """Audit the last update of a run, or of the last one. Raises RunError, DataError, ModelError, StorageError."""
    found = federation_of(home, run) if run else last_federation(home, any_readable=True)
    trained = found.run_store.history().train if found else {}
    if found is None or not trained:
        raise RunError(
            f"this site has trained nothing in run {run}" if run else "this site has trained in no run yet",
            cause="the name is misspelt, or the run has not begun",
            next_step=home.command("doctor"),
        )
    number = max(trained)
    result = trained[number]
    sheet = result.audit or _sheet(home, found, number, result)
    say(f"run {found.run}, round {number}: {sheet.training_women} training women, {sheet.other_women} test women")
    for one in sheet.attacks:
        say(f"  AUC {one.auc:.2f} ({one.auc_low:.2f} to {one.auc_high:.2f}), found {one.found:.0%}: {one.words}")
    say(verdict(sheet))
    if why := held_back(sheet, home.config().policy.audit_max_auc):
        say(f"this update stays here: {why}")


def _sheet(home: SiteHome, found: StoredRun, number: int, result: TrainResult) -> AuditSheet:
    """Return the sheet of an update that was not audited, and write it down."""
    update = Update(number, result.base, result.digest)
    if not update.is_here(home):
        raise RunError(
            f"the update of round {number} of run {found.run} is not on this machine any more",
            cause="updates are deleted when the coordinator has them and the next round is done, or earlier where they "
            "are sent in fewer bits",
            next_step="set audit_max_auc in [policy]; the agent then audits each update before it leaves: "
            f"edit {home.config_file}",
        )
    machine = machine_of(home, found.plan.recipe)
    recipe = resolve_precision(found.plan.recipe, machine.device, home.cache)
    context = TrainingContext(recipe=recipe, seed=found.plan.terms.seed, stream=site_name(home), machine=machine)
    with contextlib.closing(Display()) as display:
        collection = open_images(home, display, recipe)
        counted = [functools.partial(_show, display, stage) for stage in ("decoding", "auditing")]
        sheet = made(home, collection, update, context, *counted)
    found.run_store.note(number, dataclasses.replace(result, audit=sheet))
    return sheet


def _show(display: Display, stage: str, done: int, of: int) -> None:
    display.show(shown.Advanced("audit", WorkProgress(stage, done, of, "images")))
