"""A coordinator's home in one file, and a home made of that file again.

archive    the form of the file: what stands in it, and in which order; checksums
making     `coordinator backup`: what of a home goes in, also while the coordinator works
placing    where a backup file is made, and how it gets its name
restoring  `coordinator restore`: a new home of a file, complete or not at all
"""
