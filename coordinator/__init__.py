"""The coordinator process: owns the run's truth, no image and no torch.

Folders and modules, from bottom to top. Each imports from itself and from those that its line names:

    alarms      -
    home        -
    limits      -
    run         alarms home limits
    backup      home run
    calls       home limits run
    notify      alarms home run
    doctor      home limits run calls notify
    page        home run
    monitoring  home run notify
    commands    home limits run backup calls notify doctor page monitoring
    cli         home commands

`tests/unit/test_architecture.py` holds this table against the imports.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (a checkout is run without pip, which would refuse)
    sys.exit("error: coordinator needs Python 3.11 or newer; next: run it with a newer one, such as python3.11")
