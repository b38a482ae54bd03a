"""One picture: from a file's bytes to 8-bit RGB, or why it is refused.

One module for each format. A new format (DICOM, say) begins here.
"""
