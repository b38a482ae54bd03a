"""What a site can check for itself: keys and pins, the signed ledger, sums without the summands, models under seal.

Pure functions and values. Nothing here reads a file, a clock or a network; primitives come from `cryptography`.
"""
