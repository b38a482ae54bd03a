"""The paper's study as a program with real processes: it runs the comparison of initialisations and evaluates it.

Folders and modules, from bottom to top. Each imports from itself and from those that its line names:

    evidence     -
    records      -
    settings     records
    study_paths  records
    analysis     evidence records
    data         records settings study_paths
    report       evidence records analysis
    export       records analysis report
    planning     records settings data
    execution    records settings study_paths data planning
    commands     settings study_paths analysis data report export planning execution
    cli          commands

`tests/unit/test_architecture.py` holds this table against the imports.

Rules
1. The study trains with the programs and functions that hospitals use. It has no separate trainer.
2. A cell is one training. Its name is a digest of everything that it depends on. It is written completely or not at
   all.
3. Validation images choose. Which test parts are opened is decided in `planning.selection`, and nowhere else.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (a checkout is run without pip, which would refuse)
    sys.exit("error: cervix-study needs Python 3.11 or newer; next: run it with a newer one, such as python3.11")
