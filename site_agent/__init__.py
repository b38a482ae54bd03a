"""The process that runs at a hospital: it owns the images, the labels and the trainer.

Only its own connection to the coordinator leaves a hospital. onnxruntime, which tests the networks that are exported,
reports its use to its maker from version 1.29 on; this is switched off before it is loaded.

Folders and modules, from bottom to top. Each imports from itself and from those that its line names:

    images      -
    manifest    -
    metrics     -
    site_toml   -
    starts      -
    home        manifest site_toml
    phantom     manifest
    dicom       images manifest home
    data        images manifest home
    network     home data
    store       manifest home data
    training    images manifest metrics home data network store
    worker      images home data network store training
    classifier  images manifest metrics starts home data network store training
    federation  manifest home store worker
    report      manifest metrics starts home data network store training worker classifier
    dossier     manifest home store classifier
    doctor      manifest home store worker federation
    page        home store classifier federation
    monitoring  federation page
    commands    images manifest metrics starts home phantom dicom data network store training worker classifier
                federation report dossier doctor page monitoring
    cli         home commands

`tests/unit/test_architecture.py` holds this table against the imports.
"""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  (a checkout is run without pip, which would refuse)
    sys.exit("error: site-agent needs Python 3.11 or newer; next: run it with a newer one, such as python3.11")

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
