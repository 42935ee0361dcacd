"""difficmh: a learned generative image codec, one bitstream for people and machines.

codec = difficmh.load("lite", device="cpu")
streams = codec.compress(images, quality=3)           # list[(H, W, 3) uint8] -> list[bytes]
images = codec.decompress(streams, mode="full")       # list[(3, H, W) float32 in [0, 1]]
info = difficmh.inspect(streams[0])                   # sizes, quality, tags, fingerprint; no model needed
"""
