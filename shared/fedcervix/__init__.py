"""The library that the coordinator and the site agents share: a pure core at the bottom, thin edges on top.

Bottom to top (a module imports only from its own line and the lines above it):

    printable  errors  json_text                                                    standard library only
    plan  profiles  measures  events  quorum  rounds  alarms  economy  session  seeds   stdlib only
    spreadsheet  columns  identifiers  manifest  splits                             standard library only
    address  ownership  descriptors  storage  locks  databases                      standard library only
    weights  moves  arriving  aggregate  measuring  packing  metrics  identity  privacy   + numpy, cryptography
    wire (generated)  codec                                                         protobuf <-> events
    files  reserve  journal  blobs  rounding  config  log  pauses  printing  rpc     disk, terminal, network
    allocator  extras  process  commandline                                         memory, command line

`tests/unit/test_architecture.py` holds this table against the imports.
"""

__version__ = "0.1.0"
