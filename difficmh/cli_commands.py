"""What each command of `difficmh` does with its parsed options; each returns an exit code."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import difficmh
from difficmh.bitstream import FINGERPRINT_DIGITS, BitstreamInfo, inspect
from difficmh.capsule import (
    capsule_fingerprint,
    capsule_names,
    capsule_of,
    capsule_path,
    read_config,
    read_manifest,
    verify,
)
from difficmh.cli_models import describe_model, model_lines
from difficmh.cli_official import decompress_official, describe_official, official_lines
from difficmh.errors import CapsuleError, DifficmhError
from difficmh.images import decode_image, encode_image, to_pixels
from difficmh.limits import check_drawing
from difficmh.sd21.official_format import OfficialStream, read_official
from difficmh.tag_coder import TagPrior
from difficmh.vocabulary import capsule_prior

if TYPE_CHECKING:
    from difficmh.codec import Codec

SUFFIX = ".dicm"
DECODED = ".decoded"
"""Stands before the suffix of a picture that was given no name: beside the original, a name of its own."""

FORMATS: Mapping[str, str] = {"jpg": "jpg", "jpeg": "jpg", "png": "png", "webp": "webp"}


def compress(options: argparse.Namespace) -> int:
    """Image file to bitstream file."""
    source = Path(options.input)
    original = source.read_bytes()
    target = _target(options, source.with_suffix(SUFFIX))
    with _naming(source):
        image = decode_image(original)
    codec = difficmh.load(options.codec, device=options.device)
    if options.tags is None:
        codec.tagger()  # its imports and weights take longer than the picture, and are no part of its time
    started = time.perf_counter()
    tags = None if options.tags is None else [options.tags]
    how = _given(options, "quality", "guidance", "effort")
    (stream,) = codec.compress([image], tags=tags, **how)
    seconds = time.perf_counter() - started
    _write(target, stream)
    print(f"{source} ({len(original):,} bytes) -> {_line(target, _described(stream, codec))}, {seconds:.2f} s")
    return 0


def decompress(options: argparse.Namespace) -> int:
    """Bitstream file to image file, marked as a reconstruction."""
    source = Path(options.input)
    form = _format(options)
    stream = source.read_bytes()
    target = _target(options, source.with_suffix(f"{DECODED}.{form}"))
    with _naming(source):  # damage is found before any network is loaded
        described = read_official(stream) if options.official else difficmh.inspect(stream)
        made_by = options.codec or _maker(described)
    check_drawing(read_config(capsule_path(made_by)), options.mode, options.steps, options.sampler, options.dtype)
    codec = difficmh.load(made_by, device=options.device, **_given(options, "dtype"))
    started = time.perf_counter()
    how = {"mode": options.mode, **_given(options, "steps", "sampler")}
    with _naming(source):
        if not isinstance(described, BitstreamInfo):
            described, picture = decompress_official(codec, stream, **how)
        else:
            described = _described(stream, codec)
            (picture,) = codec.decompress([stream], **how)
    seconds = time.perf_counter() - started
    description = _description(described, codec, options.mode)
    _write(target, encode_image(to_pixels(picture), form, description, options.picture_quality))
    print(f"{_line(source, described)} -> {target} ({target.stat().st_size:,} bytes, {options.mode}), {seconds:.2f} s")
    print("The picture is a reconstruction: details may differ from the original.")
    return 0


def info(options: argparse.Namespace) -> int:
    """What bitstream files and models say about themselves; a file goes before a model of its name."""
    failures = 0
    found: list[dict[str, Any]] = []
    named = {} if options.codec is None else _prior_of(options.codec)
    for name in options.files:
        try:
            told, lines = _told(name, named)
        except (DifficmhError, OSError) as error:
            failures += 1
            complain(f"{name}: {_reason(error)}", 1)
            continue
        found.append(told)
        if not options.json:
            print(lines)
    if options.json:
        print(json.dumps(found, indent=1))
    return 1 if failures else 0


def _told(name: str, named: Mapping[str, TagPrior]) -> tuple[dict[str, Any], str]:
    """What a model or a file says about itself, as JSON has it and as lines for people.

    `named` are vocabularies beside those of the models that are found by their fingerprints, by its first digits.
    """
    if Path(name).is_dir() or (name in capsule_names() and not Path(name).exists()):
        model = describe_model(name)
        return model, model_lines(model)
    data = Path(name).read_bytes()
    if official := describe_official(data):
        return {"file": name, **asdict(official)}, official_lines(name, official)
    described = difficmh.inspect(data)
    if described.tags is None:
        described = inspect(data, named.get)
    made = f"  bitstream v{described.version}, quality {described.quality}, model {described.fingerprint}"
    return {"file": name, **asdict(described)}, f"{_line(Path(name), described)}\n{made}"


def list_models(options: argparse.Namespace) -> int:
    """The models that come with the package and those that were fetched."""
    failures = 0
    for name in capsule_names():
        try:
            path = capsule_path(name)
            size = sum(entry["bytes"] for entry in read_manifest(path)["files"].values())
            print(f"{name}\t{capsule_fingerprint(path)}\t{size / 1e6:.1f} MB\t{path}")
        except DifficmhError as error:
            failures += 1
            complain(f"{name}: {_reason(error)}", 1)
    return 1 if failures else 0


def verify_models(options: argparse.Namespace) -> int:
    """Whether the files of models are those that their manifests name."""
    failures = 0
    for name in options.models or capsule_names():
        try:
            path = capsule_path(name)
            verify(path)
            print(f"{name}: intact, fingerprint {capsule_fingerprint(path)}")
        except (DifficmhError, OSError) as error:
            failures += 1
            complain(f"{name}: {_reason(error)}", 1)
    return 1 if failures else 0


def complain(error: object, code: int) -> int:
    """One line on standard error; returns `code`."""
    if isinstance(error, OSError) and error.filename is not None:
        error = f"{error.filename}: {_reason(error)}"
    print(f"difficmh: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def package_version() -> str:
    """Of the installed package."""
    try:
        return version("difficmh")
    except PackageNotFoundError:
        return "(not installed)"


def _described(stream: bytes, codec: Codec) -> BitstreamInfo:
    """What the stream says, its tags included where the codec made it."""
    return inspect(stream, {codec.fingerprint[:FINGERPRINT_DIGITS]: codec.prior}.get)


def _maker(described: BitstreamInfo | OfficialStream) -> Path:
    """The model that made a stream, by its fingerprint: built in or fetched. Raises CapsuleError where none is it."""
    if not isinstance(described, BitstreamInfo):
        raise CapsuleError("a file of the official code does not say which model made it: name its model with --codec")
    path = capsule_of(described.fingerprint)
    if path is None:
        made = described.fingerprint
        raise CapsuleError(f"made with the model {made}, none of `difficmh models list`: name its model with --codec")
    return path


def _prior_of(model: str) -> dict[str, TagPrior]:
    """The vocabulary of a model, by the digits that its streams carry."""
    path = capsule_path(model)
    return {capsule_fingerprint(path)[:FINGERPRINT_DIGITS]: capsule_prior(path)}


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; the rest is the codec's choice."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _format(options: argparse.Namespace) -> str:
    """Of the picture to write, as the option, OUT's suffix or neither says; with a quality, one that has any."""
    form = _named_format(options)
    if form == "png" and options.picture_quality is not None:
        raise ValueError("--picture-quality is for jpg and webp: a PNG keeps every pixel")
    return form


def _named_format(options: argparse.Namespace) -> str:
    if options.output is None:
        return str(options.format or "png")
    suffix = Path(options.output).suffix.lower().removeprefix(".")
    named = FORMATS.get(suffix, options.format)
    if named is None:
        raise ValueError(f"{options.output}: which image format? Use a suffix of {', '.join(FORMATS)}, or --format")
    if options.format not in (None, named):
        raise ValueError(f"{options.output}: the suffix is not that of --format {options.format}")
    return str(named)


def _target(options: argparse.Namespace, default: Path) -> Path:
    """Where the result goes: never over the input, and over another file only if that is wanted; where a link leads."""
    if options.output == "-":
        raise ValueError("OUT is a file; - is none")
    target = Path(options.output) if options.output else default
    if target.exists() and target.samefile(options.input):
        raise ValueError(f"{target} is the input")
    if target.is_dir():
        raise ValueError(f"{target} is a directory")
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is no file that could be replaced")
    target = target.resolve() if target.is_symlink() else target
    if target.exists() and not options.force:
        raise ValueError(f"{target} exists; --force replaces it")
    if not target.parent.is_dir():
        raise ValueError(f"{target.parent} is not a directory")
    return target


def _write(path: Path, data: bytes) -> None:
    """All of `data` at `path`, or nothing; a file that was there hands on who may read it."""
    partial = path.with_name(f".difficmh-{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        with suppress(FileNotFoundError):
            shutil.copymode(path, partial)
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _description(described: BitstreamInfo, codec: Codec, mode: str) -> dict[str, str]:
    """By the model's own name: the one that was given may be a path, which is nobody else's business."""
    return {
        "Software": f"difficmh {package_version()}",
        "Description": "Reconstruction by a generative image codec; details may differ from the original.",
        "Codec": f"{codec.name} {described.fingerprint}",
        "Quality": str(described.quality),
        "Mode": mode,
        "Tags": ", ".join(described.tags or ()),
    }


def _line(path: Path, described: BitstreamInfo) -> str:
    tags = "unknown model (name it with --codec)" if described.tags is None else ", ".join(described.tags) or "none"
    size = f"{described.bytes:,} bytes, {described.bits_per_pixel:.3f} bit/pixel"
    return f"{path}: {described.width} x {described.height}, {size}, tags: {tags}"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with its content."""
    try:
        yield
    except DifficmhError as error:
        raise type(error)(f"{path}: {error}") from error


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
