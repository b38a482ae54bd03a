"""The paper's study as a program over real processes: it runs the comparison of initialisations and judges it.

    records      what a study leaves on the disk: the contract between running a study and reporting on it
    (running)    settings, cells, planning, selection, training, federations, executors
    (reporting)  statistics, report, model cards, exports

Rules
1. The study trains with the programs and functions that hospitals use. It has no trainer of its own.
2. A cell is one training. It is named by all that it depends on, and written whole or not at all.
3. Validation images choose. Which test parts are opened is decided in `opening`, and nowhere else.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (a checkout is run without pip, which would refuse)
    sys.exit("error: cervix-study needs Python 3.11 or newer; next: run it with a newer one, such as python3.11")
