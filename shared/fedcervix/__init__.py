"""The library that coordinator and site agents share: a pure core, and thin layers for input and output on top.

Folders and modules, from bottom to top. Each imports from itself and from those that its line names:

    json_text   -
    printable   -
    wire        -
    errors      printable
    core        json_text printable
    disk        printable errors core
    trust       json_text errors core
    extras      json_text errors
    models      json_text errors core disk trust
    runtime     json_text printable errors core disk extras
    transport   json_text printable wire errors core disk trust
    notify      json_text printable errors core disk runtime transport
    lineage     errors core disk trust runtime transport
    doctor      json_text printable errors core disk extras runtime
    page        errors disk runtime transport
    monitoring  errors disk extras runtime

`tests/unit/test_architecture.py` holds this table against the imports.
"""

import os

# What gRPC reads from the environment, some of it when it is imported: so before any module that imports it.
# The library cannot be told a minimum version. These are the only TLS 1.2 suites it may then agree to; TLS 1.3's
# suites are all of that kind. Read once, when gRPC is first used.
os.environ["GRPC_SSL_CIPHER_SUITES"] = ":".join(
    f"ECDHE-ECDSA-{cipher}" for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
)
# Else the library writes a line of 200 bytes for each handshake that fails: whoever reaches a port could fill the disk
# with them (1.2 MB a second, measured), and at a terminal they stand between the lines of ours. Read once, too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"
