"""Run in a process of its own by `test_exactness.py`, under some processor setting.

Reads `{"streams": [hex], "threads": int, "channels_last": bool, "device": str}` from standard input; prints the digests
of these streams here, a stream encoded here with its digest, and the setting that torch found.
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
        codec.networks.model.to(memory_format=torch.contiguous_format)
    digests = [digest(codec, bytes.fromhex(stream)) for stream in request["streams"]]
    (own,) = codec.compress([photograph(128, 192, seed=7)], quality=5, tags=[["tree"]])
    result = {"digests": digests, "stream": own.hex(), "own": digest(codec, own)}
    setting = {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    print(json.dumps(result | setting))


if __name__ == "__main__":
    main()
