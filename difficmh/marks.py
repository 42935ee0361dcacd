"""EXIF and XMP by which any viewer can tell that an image is a reconstruction, and of what."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any
from xml.sax.saxutils import escape

from PIL import ExifTags, Image, PngImagePlugin

MAX_FIELDS = 12
MAX_FIELD = 500
"""Fields kept, and characters of each: EXIF and XMP have room for 64 KiB each in a JPEG."""

XMP_NAMESPACE = "urn:difficmh:reconstruction:1"

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for media that a trained model had a part in, which viewers and search engines look for."""

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:iptc="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:difficmh="{namespace}">
<xmp:CreatorTool>{software}</xmp:CreatorTool>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></dc:description>
<iptc:DigitalSourceType>{source_type}</iptc:DigitalSourceType>
<difficmh:fields><rdf:Bag>{fields}</rdf:Bag></difficmh:fields>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def reconstruction_marks(format: str, description: Mapping[str, str]) -> dict[str, Any]:
    """Options for Pillow's `save` that carry `description` in EXIF and XMP; `format` by Pillow's name.

    Kept are the first `MAX_FIELDS` fields, of each `MAX_FIELD` characters, without control characters.
    """
    kept = islice(description.items(), MAX_FIELDS)
    fields = {_printable(key)[:MAX_FIELD]: _printable(value)[:MAX_FIELD] for key, value in kept}
    exif = Image.Exif()
    for tag, key in ((ExifTags.Base.Software, "Software"), (ExifTags.Base.ImageDescription, "Description")):
        if key in fields:
            exif[tag] = fields[key].encode()  # as bytes, for Pillow turns what is not ASCII into question marks
    xmp = _xmp(fields)
    if format != "PNG":
        return {"exif": exif, "xmp": xmp}
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return {"exif": exif, "pnginfo": texts}


def _xmp(fields: Mapping[str, str]) -> bytes:
    entries = "".join(f"<rdf:li>{escape(key)}: {escape(value)}</rdf:li>" for key, value in fields.items())
    packet = _XMP.format(
        namespace=XMP_NAMESPACE,
        software=escape(fields.get("Software", "")),
        text=escape(fields.get("Description", "")),
        source_type=SOURCE_TYPE,
        fields=entries,
    )
    return packet.encode()


def _printable(text: str) -> str:
    """Without control characters and lone surrogates, which XML cannot hold."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")
