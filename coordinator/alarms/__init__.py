"""Unusual behaviour of a site, found in the ledger. A new alarm is a function in `alarm_sources`."""
