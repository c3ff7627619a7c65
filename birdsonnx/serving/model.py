"""The model that a server opens: for no end of photos, which come one by one."""

from dataclasses import replace

from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.opening import choose_model, open_model
from birdsonnx.inference.requests import Request
from birdsonnx.model.metadata import INPUT
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks

ENDLESS = 10**6
"""Photos that a server is opened for: engine and form are those of long runs."""


def opened(request: Request, ranks: Ranks, audience: Audience) -> Classifier:
    """The model of a request. Raises BirdsonnxError."""
    model = choose_model(request, audience.say)
    classifier = open_model(model, ENDLESS, request, ranks, audience)
    takes_any_size = not isinstance(classifier.engine.input_shapes[INPUT][0], int)
    if takes_any_size or request.per_run is not None:
        return classifier
    # OpenVINO's runs have one size, which black photos would fill up: a lone photo would be as late as eight.
    return open_model(model, ENDLESS, replace(request, per_run=1), ranks, audience)
