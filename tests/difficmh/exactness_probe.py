"""Run in a process of its own by `test_exactness.py`, under some processor setting.

Reads `{"streams": [hex], "channels_last": bool}` from standard input; prints the digests of these streams here, and a
stream encoded here with its digest.
"""

from __future__ import annotations

import json
import sys

import torch

import difficmh
from tests.difficmh.tiny_capsule import photograph
from tests.golden.regenerate import digest


def main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    codec = difficmh.load("lite", request["device"])
    if not request["channels_last"]:
        codec.model.to(memory_format=torch.contiguous_format)
    digests = [digest(codec, bytes.fromhex(stream)) for stream in request["streams"]]
    (own,) = codec.compress([photograph(128, 192, seed=7)], quality=5, tags=[["tree"]])
    print(json.dumps({"digests": digests, "stream": own.hex(), "own": digest(codec, own)}))


if __name__ == "__main__":
    main()
