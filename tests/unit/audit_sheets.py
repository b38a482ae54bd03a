"""The sheet of an audit, as tests need it."""

from __future__ import annotations

from site_agent.store.audit_sheets import DECISIVE, WOMEN_MIN, Attack, AuditSheet


def sheet(auc_low: float, women: int = 120) -> AuditSheet:
    attacks = tuple(
        Attack(name=name, auc=0.9, auc_low=auc_low, auc_high=0.95, found=0.3, found_low=0.1, found_high=0.5)
        for name in DECISIVE
    )
    return AuditSheet(
        round=1,
        base="",
        update="",
        training_women=300,
        other_women=women,
        images=500,
        attacks=attacks if women >= WOMEN_MIN else (),
    )
