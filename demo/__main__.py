"""Compresses, queries and decodes photographs with the real jobs on a local Ray, then shows what became of them.

python -m demo                                   # what `make demo` runs
python -m demo --quality 1 --output elsewhere
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from demo.page import Picture, Run, Totals, write_page
from demo.photographs import FIRST_SHARD, PHOTOGRAPHS, write_shards
from demo.results import archived_pictures, collect_pictures, most_useful_tag, tag_query
from demo.strip import write_strip
from jobs import compress_dataset, decode_dataset
from pipeline.archive import Archive

OWN_FOLDERS = ("shards", "archive", "preview", "full")
PAGE = "index.html"

Job: TypeAlias = Callable[[Sequence[str]], int]
"""`main` of a job: from arguments to exit status."""


@dataclass
class Demo:
    """A run into `output`; `seconds` fills up step by step."""

    output: Path
    codec: str
    quality: int
    console: Console = field(default_factory=lambda: Console(width=None if sys.stdout.isatty() else 120))
    seconds: dict[str, float] = field(default_factory=dict)

    def job(self, step: str, script: str, main: Job, *arguments: str) -> None:
        """Run a job with the arguments that a user would type, and note how long it took.

        All jobs run in this process, and so on one local Ray, which the first of them starts. Where a job fails, the
        demo ends with its status.
        """
        self.console.rule(f"[bold]{step}[/]")
        self.console.print(
            shlex.join(["python", f"jobs/{script}", *arguments]), markup=False, highlight=False, soft_wrap=True
        )
        start = time.perf_counter()
        if status := main(arguments):
            sys.exit(status)
        self.seconds[step] = time.perf_counter() - start

    def compress(self) -> None:
        inputs, archive = f"{self.output}/shards/*.tar", str(self.output / "archive")
        setting = ("--codec", self.codec, "--quality", str(self.quality))
        main = compress_dataset.main
        self.job("compress", "compress_dataset.py", main, "--input", inputs, "--archive", archive, *setting)

    def decode(self, mode: str) -> None:
        places = ("--archive", str(self.output / "archive"), "--output", str(self.output / mode))
        form = ("--mode", mode, "--format", "png", "--layout", "files")
        self.job(mode, "decode_dataset.py", decode_dataset.main, *places, *form)

    def clear(self) -> None:
        """Remove what an earlier demo left in `output`. Folders that no demo wrote end the process with a message."""
        found = [self.output / name for name in OWN_FOLDERS if (self.output / name).exists()]
        if found and not (self.output / "shards" / FIRST_SHARD).exists():
            sys.exit(f"{', '.join(map(str, found))}: not from a demo; name another folder with --output")
        for folder in found:
            shutil.rmtree(folder)
        (self.output / PAGE).unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    demo = parse_arguments(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray asks, or tells its makers
    demo.clear()
    write_shards(PHOTOGRAPHS, demo.output / "shards")
    demo.compress()
    demo.decode("preview")
    demo.decode("full")
    archive = Archive.open(str(demo.output / "archive"))
    run, pictures = described(demo, archive), shown(demo, archive)
    page = demo.output / PAGE
    write_page(page, run, pictures)
    write_strip(demo.output / "side-by-side.jpg", pictures)
    demo.console.print(table(run, pictures))
    demo.console.print(f'query("{run.query}") → {", ".join(run.matches) or "none"}', markup=False, highlight=False)
    demo.console.print(f"Side by side: {page.resolve().as_uri()}")


def parse_arguments(arguments: Sequence[str] | None) -> Demo:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder to write to (%(default)s)")
    parser.add_argument("--codec", default="lite", help="codec preset (%(default)s)")
    parser.add_argument("--quality", type=int, default=3, help="1 (smallest) to 6 (%(default)s)")
    return Demo(**vars(parser.parse_args(arguments)))


def described(demo: Demo, archive: Archive) -> Run:
    """What was done, and the answer to a query by a tag that several pictures have."""
    tag = most_useful_tag(archived_pictures(archive).values())
    query = tag_query(tag) if tag else "len(tags) > 0"
    setting = (demo.codec, archive.manifest.codec_fingerprint, demo.quality)
    return Run(*setting, demo.seconds, str(demo.output / "archive"), query, sorted(archive.keys(query)))


def shown(demo: Demo, archive: Archive) -> list[Picture]:
    """Each photograph with its decodes."""
    from difficmh.images import decode_image

    folders = {mode: demo.output / mode for mode in ("preview", "full")}
    return collect_pictures(PHOTOGRAPHS, archived_pictures(archive), folders, decode_image)


def table(run: Run, pictures: Sequence[Picture]) -> Table:
    """Images, bits per pixel, ratio to the original files, tags; seconds of each step in the caption."""
    totals = Totals.of(pictures)
    seconds = ", ".join(f"{step} {value:.1f} s" for step, value in run.seconds.items())
    shown = Table(title=f"{totals.images} photographs, codec {run.codec}, quality {run.quality}", caption=seconds)
    for name in ("image", "size", "bits/pixel", "times smaller", "preview PSNR"):
        shown.add_column(name, justify="left" if name == "image" else "right", no_wrap=True)
    shown.add_column("tags", overflow="ellipsis", no_wrap=True)
    for each in pictures:
        numbers = (f"{each.bits_per_pixel:.3f}", f"{each.ratio:.1f}", f"{each.preview_psnr:.1f} dB")
        shown.add_row(each.key, f"{each.width} × {each.height}", *numbers, ", ".join(each.tags))
    shown.add_section()
    shown.add_row("all", f"{totals.megapixels:.1f} MP", f"{totals.bits_per_pixel:.3f}", f"{totals.ratio:.1f}", "", "")
    return shown


if __name__ == "__main__":
    main()
