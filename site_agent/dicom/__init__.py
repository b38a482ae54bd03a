"""Pictures out of DICOM files: what a header says, who a woman is called here, frames as PNG files, and a manifest.

Nothing that names a patient leaves this folder's functions: no name, number, date or path. Identifiers are replaced by
keyed digests; texts of a header are only compared with words; errors are reasons out of a fixed list.
"""
