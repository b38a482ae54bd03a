"""The coordinator process: owns the run's truth, no image and no torch."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (a checkout is run without pip, which would refuse)
    sys.exit("error: coordinator needs Python 3.11 or newer; next: run it with a newer one, such as python3.11")
