"""The statistical methods of a study, besides intervals and verdicts (`site_agent.classifier.intervals`).

All are pure functions: they read no file and no clock, and draw no random numbers. Every method names its source.
"""
