"""Encoded files say that they are reconstructions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from difficmh.errors import ImageError
from difficmh.images import decode_image, encode_image
from tests.corpora import picture

DESCRIPTION = {
    "Software": "difficmh 0.1.0",
    "Description": "Reconstruction <not> an original & più",
    "codec": "lite",
}


class TestEncode:
    @pytest.mark.parametrize(("format", "pillow_name"), [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
    def test_file_says_that_it_is_a_reconstruction(self, format: str, pillow_name: str) -> None:
        pixels = picture(2)
        data = encode_image(pixels, format, DESCRIPTION)
        image = Image.open(io.BytesIO(data))
        assert image.format == pillow_name
        exif = image.getexif()
        assert exif[ExifTags.Base.Software] == "difficmh 0.1.0"
        assert exif[ExifTags.Base.ImageDescription].startswith("Reconstruction <not> an original")
        image.load()
        xmp = image.info["xmp"]
        for text in ("compositeWithTrainedAlgorithmicMedia", "&lt;not&gt;", "più", "codec: lite", "difficmh 0.1.0"):
            assert text in xmp.decode(), text
        assert np.abs(decode_image(data).astype(int) - pixels).mean() < 8

    def test_a_description_in_any_script_survives_in_exif(self) -> None:
        description = {"Description": "Reconstruction of straße/東京.jpg"}
        exif = Image.open(io.BytesIO(encode_image(picture(2), "jpg", description))).getexif()
        assert exif[ExifTags.Base.ImageDescription].encode("latin-1").decode() == description["Description"]

    def test_png_is_lossless(self) -> None:
        assert np.array_equal(decode_image(encode_image(picture(2), "png", {})), picture(2))

    @given(st.dictionaries(st.text(max_size=30), st.text(max_size=3000), max_size=30))
    def test_any_description_fits(self, description: dict[str, str]) -> None:
        assert decode_image(encode_image(picture(2, 1, 1), "jpg", description)).shape == (1, 1, 3)

    def test_xmp_is_well_formed(self) -> None:
        from xml.etree import ElementTree

        fields = {"Description": "]]> <a b='&'> \x00 \ud800", "ke<y": "v"}
        xmp = Image.open(io.BytesIO(encode_image(picture(), "webp", fields))).info["xmp"]
        assert "ke<y: v" in "".join(ElementTree.fromstring(xmp).itertext())

    def test_wrong_arguments(self) -> None:
        with pytest.raises(ValueError, match="gif"):
            encode_image(picture(), "gif", {})
        with pytest.raises(ValueError, match="uint8"):
            encode_image(picture().astype(np.float32), "png", {})
        with pytest.raises(ValueError, match="uint8"):
            encode_image(picture()[..., :1], "png", {})
        with pytest.raises(ValueError, match="uint8"):
            encode_image(picture()[:0], "png", {})

    def test_size_that_the_format_cannot_hold(self) -> None:
        with pytest.raises(ImageError, match="20000"):
            encode_image(np.zeros((1, 20_000, 3), np.uint8), "webp", {})
