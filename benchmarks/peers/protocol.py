"""What all peers share: settings as one JSON object in, one line of JSON out.

    python -m benchmarks.peers.torch '{"model": "model.onnx", "photos": "photos.npy", "batch": 8, …}'

`photos` is uint8 RGB `[photos, 224, 224, 3]`. With `log_probs`, a path, the log-probabilities of all photos
go there first; with `seconds` the peer is timed. A package that is not installed is `{"missing": name}`.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.peers.timing import Answers, Array, batches_of, images_per_second

CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)


@dataclass(frozen=True)
class Peer:
    """A loaded network."""

    answers: Answers
    packages: tuple[str, ...]
    """Whose versions go into the report."""
    prepare: Callable[[Array], Array] = lambda photos: photos
    """Photos to what the network reads, once and before the clock starts."""
    chosen: dict[str, Any] | None = None
    """What the system settled by itself and the report should tell."""


def preprocessed(photos: Array) -> Array:
    """Keras' `preprocess_input` for ResNet50: float32 BGR minus the mean, NHWC."""
    return photos[..., ::-1].astype(np.float32) - CAFFE_MEAN_BGR


def serve(load: Callable[[dict[str, Any]], Peer]) -> None:
    """Be a peer process; `load` imports what it needs by itself, so that loading is timed as a whole."""
    settings = json.loads(sys.argv[1])
    photos = np.load(settings["photos"])
    started = time.perf_counter()
    try:
        peer = load(settings)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
        return
    found: dict[str, Any] = {"load_s": time.perf_counter() - started}
    batches = batches_of(peer.prepare(photos), settings.get("per_call", settings["batch"]))
    if "log_probs" in settings:
        np.save(settings["log_probs"], np.concatenate([*peer.answers(batches)])[: len(photos)])
    if "seconds" in settings:
        found["images_per_second"] = images_per_second(peer.answers, batches, settings["seconds"])
    found["batch"] = settings["batch"]
    found["chosen"] = peer.chosen or {}
    found["versions"] = {name: version(name) for name in peer.packages}
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(found))
