"""Classifiers: fine-tuned, kept, tested on images, applied to new ones, exported.

The interval of a score and the verdict on a difference are made here (`by_woman`, `intervals`).
"""
