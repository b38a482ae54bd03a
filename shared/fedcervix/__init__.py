"""The library that coordinator and site agents share: a pure core, and thin layers for input and output on top.

Folders and modules, from bottom to top. Each imports from itself and from those that its line names:

    json_text  -
    printable  -
    wire       -
    errors     printable
    core       json_text printable
    disk       errors core
    extras     json_text errors
    models     json_text errors core disk
    runtime    json_text printable errors core disk extras
    transport  json_text printable wire errors core disk

`tests/unit/test_architecture.py` holds this table against the imports.
"""

__version__ = "0.1.0"
