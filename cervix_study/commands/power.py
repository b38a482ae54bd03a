"""The command `power`: how many women a difference needs, and what so many women can show."""

from __future__ import annotations

from collections.abc import Sequence

from cervix_study.planning.power import Design
from fedcervix.errors import ConfigError
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from site_agent.classifier.intervals import POWER, WOMEN_MIN

NOTHING = "–"


def power(
    auc: float,
    differences: Sequence[float],
    correlations: Sequence[float],
    case_share: float,
    comparisons: int,
    women: int | None,
) -> None:
    """Print how many women differences need, and what `women` can show. Raises ConfigError."""
    from rich.table import Table

    try:
        designs = [
            Design(auc=auc, correlation=correlation, case_share=case_share, comparisons=comparisons)
            for correlation in correlations
        ]
        needed = [[design.women(difference) for design in designs] for difference in differences]
    except ValueError as error:
        raise ConfigError(f"such a study cannot be planned: {error}", next_step="cervix-study power") from error
    heads = [f"correlation {correlation:g}" for correlation in correlations]
    title = f"Women to test, from an AUC of {auc:g} ({100 * case_share:g} % cases)"
    table = Table("difference in AUC", *heads, title=title, title_justify="left")
    for difference, row in zip(differences, needed, strict=True):
        table.add_row(f"{difference:g}", *(NOTHING if n is None else f"{n:,}" for n in row))
    stdout_console().print(table)
    say(f"With so many women the difference is shown in {100 * POWER:g} of 100 studies.")
    if women is not None:
        _of_women(designs, differences, women, heads)
    _limits(designs[0], women)


def _of_women(designs: Sequence[Design], differences: Sequence[float], women: int, heads: Sequence[str]) -> None:
    from rich.table import Table

    table = Table(f"{women:,} women", *heads, title=f"What {women:,} women can show", title_justify="left")
    found = [design.detectable(women) for design in designs]
    smallest = [NOTHING if size is None else f"{size:.3f}" for size in found]
    table.add_row(f"shown in {100 * POWER:g} of 100 studies", *smallest)
    for difference in differences:
        reachable = designs[0].auc + difference < 1
        row = [f"{100 * d.power(difference, women):.0f} %" if reachable else NOTHING for d in designs]
        table.add_row(f"a difference of {difference:g} is shown in", *row)
    stdout_console().print(table)


def _limits(design: Design, women: int | None) -> None:
    say(
        f"Reports decide nothing with fewer than {WOMEN_MIN} test women of a class: with this share of cases, "
        f"{design.women_min} women at least."
    )
    if women is not None and women < design.women_min:
        say(f"{women:,} women are too few for any conclusion.")
    say(
        "The correlation is that of the two AUCs. One training of each start: about .5 to .7. Scores averaged over "
        "three to five trainings: .8 to .9. Where one start has hardly learned anything: near 0, whatever is averaged."
    )
    if design.comparisons == 1:
        say("This is for one comparison, named in advance; for the first of several after correction: --comparisons.")
