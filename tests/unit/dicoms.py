"""DICOM files as tests need them, written by pydicom."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

CLASS = "1.2.840.10008.5.1.4.1.1.77.1.1"
"""VL Endoscopic Image Storage"""
SIDE = 48


def pattern(seed: int = 0, side: int = SIDE) -> NDArray[np.uint8]:
    """Return a smooth picture (side, side, 3), so that lossy codecs keep it."""
    at = np.linspace(0, 1, side)
    chance = np.random.default_rng(seed)
    waves = [np.outer(np.sin(3 * at + chance.random()), np.cos(2 * at + chance.random())) for _ in range(3)]
    return (127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def dataset(pixels: NDArray[Any], *, instance: str = "1.2.3", **elements: Any) -> Dataset:
    """Return a file with these stored values: (H, W), (H, W, 3), or frames of them in front."""
    colour = pixels.shape[-1] == 3
    plane = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    frames = int(np.prod(pixels.shape)) // (int(np.prod(plane)) * (3 if colour else 1))
    bits = 8 * pixels.dtype.itemsize
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = CLASS
    made.file_meta.MediaStorageSOPInstanceUID = instance
    made.SOPClassUID, made.SOPInstanceUID = CLASS, instance
    made.StudyInstanceUID, made.PatientID, made.Modality = "1.9", "P-1", "ES"
    made.Rows, made.Columns, made.SamplesPerPixel = *plane, 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = 0
    if frames > 1:
        made.NumberOfFrames = frames
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def jpeg_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture as a JPEG."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=95)
    return data.getvalue()


def jpeg(pixels: NDArray[np.uint8], **elements: Any) -> Dataset:
    """Return a file whose picture is a JPEG, as cameras make it."""
    made = dataset(pixels, **{"PhotometricInterpretation": "YBR_FULL_422", **elements})
    made.PixelData = encapsulate([jpeg_bytes(pixels)])
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return made


def write(folder: Path, name: str, made: Dataset) -> Path:
    """Write a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path
