"""When memory is short: an image that is too large for it is set aside; a device without any would set aside all."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import JobError, describe, is_out_of_memory

MOST_IN_A_ROW = 20


@dataclass
class MemoryWatch:
    """Tells a worker's images that are too large from a device that something else has filled.

    `largest` is the size in pixels of the largest image that has found enough memory. One that is larger may be too
    large. One that is not, or any before the first success, is evidence against the device: `in_a_row` counts them.
    """

    largest: int = 0
    in_a_row: int = 0

    def enough(self, pixels: int) -> None:
        """An image of this size went through."""
        self.largest = max(self.largest, pixels)
        self.in_a_row = 0

    def failed(self, error: BaseException, pixels: int) -> None:
        """An image, on its own, did not. Raises JobError where memory is to blame, and not the image."""
        if not is_out_of_memory(error) or 0 < self.largest < pixels:
            return
        self.in_a_row += 1
        if self.in_a_row >= MOST_IN_A_ROW:
            raise JobError(
                f"{MOST_IN_A_ROW} images in a row found too little memory, so nothing more is set aside; free some, "
                f"or use --device cpu or fewer --workers: {describe(error)}"
            ) from error
