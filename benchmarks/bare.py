"""The yardstick: a bare ONNX Runtime session with default options, batch 8, no decoding, no code of ours.

Prints the seconds that `photos` photos take, after one warm-up batch.
"""

import sys
import time

import numpy as np
import onnxruntime

BATCH = 8

model, photos = sys.argv[1], int(sys.argv[2])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
[images] = session.get_inputs()
batch = np.random.default_rng(0).integers(0, 256, (BATCH, *images.shape[1:]), np.uint8)
session.run(None, {images.name: batch})
started = time.perf_counter()
for first in range(0, photos, BATCH):
    session.run(None, {images.name: batch[: photos - first]})
print(time.perf_counter() - started)
