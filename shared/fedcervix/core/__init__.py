"""The federation as values and functions: plan, events, rounds, session. No network, clock, disk or tensor."""
