"""The agent: the connection to the coordinator, and what a site allows, answers and sends.

No torch: what trains is in the folder `worker`.
"""
