"""Metrics for Prometheus: how one is declared, how many of them become a text, and where the text goes."""
