"""From a training checkpoint to a capsule."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors
from torch import Tensor

from difficmh.capsule import (
    CONFIG,
    DECODING_FILES,
    FORMAT,
    MANIFEST,
    TABLES,
    VOCABULARY,
    WEIGHTS,
    read_name,
    share,
    write_manifest,
)
from difficmh.cdf_tables import CdfTables, gaussian_tables, tables_from_pmf
from difficmh.config import CodecConfig
from difficmh.errors import CapsuleError
from difficmh.model import CodecModel
from difficmh.symbols import Z_LIMIT, EntropyTables
from difficmh.training.card import CARD
from difficmh.training.history import HISTORY_FILE, read_checkpoint, read_history, write_history
from difficmh.training.image_tags import learned_vocabulary
from difficmh.training.rate import TRAINING_ONLY, RateModel
from difficmh.training.trainer import averaged_state
from difficmh.vocabulary import Vocabulary
from difficmh.zoo import check_vocabulary

Z_TAIL = 1e-6
"""What lies beyond the outermost values of z that are likelier than this is escaped."""


def companions(source: Path, name: str) -> list[Path]:
    """The files of a capsule that an export as `name` keeps: what no checkpoint holds.

    Its model card only where it is the card of a codec of that name: another codec has learned from other pictures.
    Raises CapsuleError where there is no such directory.
    """
    if not source.is_dir():
        raise CapsuleError(
            f"there is no capsule {source} that tag vocabulary and tagger could come from: give --companions lite"
        )
    made = {MANIFEST, HISTORY_FILE, *DECODING_FILES} - {VOCABULARY}
    if (source / CONFIG).is_file() and read_name(source) != name:
        made.add(CARD)
    return [file for file in sorted(source.iterdir()) if file.is_file() and file.name not in made]


def export_with_companions(checkpoint: Path, name: str, source: Path, capsule: Path) -> str:
    """`export` with the `companions` of a capsule. Raises as both do, for what is no checkpoint first."""
    read_checkpoint(checkpoint, mmap=True)
    return export(checkpoint, name, companions(source, name), capsule)


def export(checkpoint: Path, name: str, kept: Iterable[Path], capsule: Path) -> str:
    """Writes a capsule of the averaged weights of `checkpoint` and returns its fingerprint.

    `kept` are files that come along as they are: `tags.json`, `tagger.safetensors`, model card, licence. Raises
    CapsuleError, before anything is written, where the vocabulary among them is not the one that the weights were
    trained for, and where the weights make no codec (see `half_precision`).
    """
    kept = list(kept)
    fields, weights = averaged_state(checkpoint)
    config = CodecConfig.from_dict(fields)
    for file in kept:
        if file.name == VOCABULARY:
            _check_vocabulary(config, checkpoint, Vocabulary.load(file))
    model = CodecModel(config)
    model.rate = rate = RateModel(config.entropy.hyper_channels)
    model.load_state_dict(weights)
    decoding = half_precision(model)
    tables = EntropyTables(z=bottleneck_tables(rate), y=gaussian_tables())
    history = read_history(checkpoint)
    capsule.mkdir(parents=True, exist_ok=True)
    for file in kept:
        if file.resolve() != (capsule / file.name).resolve():
            shutil.copyfile(file, capsule / file.name)
    content = {"format": FORMAT, "name": name, "codec": config.to_dict()}
    (capsule / CONFIG).write_text(json.dumps(content, indent=1) + "\n")
    save_tensors(decoding, capsule / WEIGHTS)
    save_arrays(tables.to_arrays(), capsule / TABLES)
    for file in (capsule / WEIGHTS, capsule / TABLES):
        share(file)
    if history:
        write_history(capsule, history)
    return write_manifest(capsule)


@contextmanager
def drafted(capsule: Path) -> Iterator[Path]:
    """A place beside `capsule`, for what is to be published there; it goes with the block, whatever is in it.

    Its last part is that of `capsule`: reports call a codec by the name of its folder.
    """
    capsule.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=capsule.parent) as place:
        yield Path(place) / capsule.name


def publish(draft: Path, capsule: Path) -> None:
    """Moves the files of a capsule from its draft into their place, the manifest last."""
    capsule.mkdir(exist_ok=True)
    files = [file for file in draft.iterdir() if not file.name.startswith(".")]
    for file in sorted(files, key=lambda file: file.name == MANIFEST):
        file.replace(capsule / file.name)


def half_precision(model: CodecModel) -> dict[str, Tensor]:
    """The weights that decode, float16, by name; `model` has them afterwards.

    Raises CapsuleError where one of them, or of the densities, is not finite, and where those of the entropy model are
    too large for exact sums.
    """
    weights = model.state_dict()
    decoding = {key: value.half().contiguous() for key, value in weights.items() if not key.startswith(TRAINING_ONLY)}
    for key, value in {**weights, **decoding}.items():
        if not value.isfinite().all():
            raise CapsuleError(f"the weights {key} are not all finite in the precision of a capsule")
    model.load_state_dict(decoding, strict=False)
    try:
        model.entropy.freeze()
    except ValueError as error:
        raise CapsuleError(f"the entropy model codes nothing with these weights: {error}") from error
    return decoding


def _check_vocabulary(config: CodecConfig, checkpoint: Path, vocabulary: Vocabulary) -> None:
    check_vocabulary(config, vocabulary)
    for learned, there in zip(learned_vocabulary(checkpoint), vocabulary.names, strict=False):
        if learned != there:
            raise CapsuleError(
                f"the denoiser was trained for other tags: {learned!r} where the vocabulary has {there!r}"
            )


def bottleneck_tables(rate: RateModel) -> CdfTables:
    """Integer tables of z's channels, from the trained densities; what lies beyond the tails is escaped."""
    reach = Z_LIMIT
    pmfs, offsets = [], []
    for row in rate.z_probabilities(reach).double().numpy():
        likely = np.flatnonzero(row > Z_TAIL)
        first, last = (likely[0], likely[-1]) if len(likely) else (reach, reach)
        part = row[first : last + 1]
        pmfs.append(part / max(1.0, float(part.sum())))
        offsets.append(int(first) - reach)
    return tables_from_pmf(pmfs, offsets)
