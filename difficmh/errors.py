"""The errors of the codec.

DifficmhError
├── BitstreamError (ValueError)   damaged, truncated, foreign or absurd bitstream; wrong model
├── ImageError (ValueError)       bytes that are no image this library can read
└── CapsuleError (ValueError)     model directory that is missing, incomplete or altered
"""

from __future__ import annotations


class DifficmhError(Exception):
    """Any error this library raises on purpose."""


class BitstreamError(DifficmhError, ValueError):
    """A bitstream that cannot be decoded: the message says what is wrong with it."""


class ImageError(DifficmhError, ValueError):
    """Bytes that are not an image, or one that cannot be read."""


class CapsuleError(DifficmhError, ValueError):
    """A model capsule that is missing, incomplete or altered."""
