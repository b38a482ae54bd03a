"""Weights as files: checked, averaged, packed, and kept by their digest."""
