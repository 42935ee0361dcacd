"""Make the capsule of a released model of files that lie anywhere: `difficmh models fetch` with object stores."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import IO, Any

from difficmh.cli_models import add_fetch, make_capsule
from difficmh.errors import CapsuleError
from difficmh.sd21.http_stream import open_http
from pipeline.errors import JobError
from pipeline.explanations import reaching
from pipeline.job import add_storage_options, exit_code
from pipeline.retry import BRIEF
from pipeline.storage import Storage

EXAMPLES = """examples:
  python jobs/fetch_model.py sd21-r4 --checkpoint s3://models/difficmh/sd21-r4.ckpt --dtype bfloat16
  python jobs/fetch_model.py sd21-r4 --checkpoint gs://models/r4.ckpt --storage-options '{"token": "anon"}'

exit status: 0 all well, 2 wrong usage, or files that cannot be had or are not what the model needs"""


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Wrong usage ends the process with status 2."""
    parser = ArgumentParser(epilog=EXAMPLES, formatter_class=RawDescriptionHelpFormatter)
    add_fetch(parser, kinds="any address that fsspec opens (s3://, gs://, https://, …)")
    add_storage_options(parser)
    return parser.parse_args(arguments)


def open_stored(url: str, options: Mapping[str, Any]) -> AbstractContextManager[IO[bytes]]:
    """An object of any store for reading; it can seek. Raises JobError where it cannot be had."""
    if url.lower().startswith(("http://", "https://")):
        return open_http(url)
    with reaching(url):
        stored = Storage.from_url(url, options)
        replace(stored, retry=BRIEF).info("")  # a wrong endpoint shows within seconds; a download has more patience
        return stored.open("")


def run(options: Namespace) -> int:
    """Fetches and assembles; the exit status. Raises JobError where the capsule cannot be made."""
    try:
        return make_capsule(options, partial(open_stored, options=options.storage_options))
    except CapsuleError as error:
        raise JobError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
