"""Where the time of a network's trunk on oneDNN goes, on one thread.

    python -m benchmarks.trunk MODEL.onnx [--photos 16] [--kind bf16|f32] [--rounds 5]

All layers are trained, on random values. Every step of forward and backward is run and timed by itself, in
order; the figures are medians over the rounds. GFLOP/s are those of convolutions' products.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from birdsonnx.model import model_file
from birdsonnx.model.trainable import trainable_layers
from birdsonnx.onednn.descriptors import BF16, F32
from birdsonnx.onednn.primitives import D_RESULT, D_SOURCE, D_WEIGHTS, RESULT, SOURCE, WEIGHTS
from birdsonnx.onednn.program import Replica
from birdsonnx.onednn.recording import Slot, Step
from birdsonnx.runtime import isa
from birdsonnx.training import precision
from birdsonnx.training.losses import Loss
from birdsonnx.training.partition import Network, Partition
from birdsonnx.training.trunk_kernels import TrunkKernels

KINDS = {"bf16": BF16, "f32": F32}
NAMES = {kind: name for name, kind in KINDS.items()}


def kernels_of(path: Path, kind: int, photos: int) -> TrunkKernels:
    model = model_file.load(path)
    network = Network(model, trainable_layers(model.metadata, ("*",)))
    loss = Loss(np.ones(model.num_classes, np.float32), 0.0, 0.0)

    def divide(network: Network) -> Partition:
        return network.divide(network.boundaries()[-1])

    kernels = precision.by_onednn(network, divide, loss, kind, [photos], 1).kernels
    assert isinstance(kernels, TrunkKernels)
    return kernels


def flop(step: Step) -> float:
    """Of a convolution: two for each product."""
    weights = step.tensors.get(WEIGHTS) or step.tensors.get(D_WEIGHTS)
    result = step.tensors.get(RESULT) or step.tensors.get(D_RESULT)
    if weights is None or result is None or not step.primitive.name.startswith("convolution"):
        return 0.0
    shape = weights.descriptor.shape  # [out, in, height, width], or with groups in front
    return 2.0 * float(np.prod(result.descriptor.shape)) * float(np.prod(shape[-3:]))


def told(step: Step) -> str:
    """Shapes, formats' types and implementation."""
    places = [step.tensors[place] for place in (SOURCE, D_SOURCE, WEIGHTS, D_WEIGHTS, RESULT, D_RESULT)
              if place in step.tensors]  # fmt: skip
    shapes = [f"{'x'.join(map(str, each.descriptor.shape))} {NAMES[each.descriptor.kind]}" for each in places]
    return f"{' , '.join(shapes)} | {step.primitive.implementation}"


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--kind", choices=KINDS, default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--top", type=int, default=10, help="single steps that are listed")
    options = parser.parse_args()
    kernels = kernels_of(options.model, KINDS[options.kind], options.photos)
    with ThreadPoolExecutor(1) as pool:
        forms_ms = statistics.median(timed(lambda: kernels.refresh(pool)) for _ in range(options.rounds))
    program = kernels.program_for(options.photos)
    bound = Replica(kernels.library).bound(program)
    slots = {
        tensor.place.name: np.random.default_rng(0).random(tensor.descriptor.bytes // 4, np.float32)
        for step in program.steps
        for tensor in step.tensors.values()
        if isinstance(tensor.place, Slot)
    }
    for name, values in slots.items():
        bound.give(name, values)
    bound.forward()
    bound.backward()
    rounds = [[timed(call) for call in bound._calls] for _ in range(options.rounds)]
    times = [statistics.median(each) for each in zip(*rounds, strict=True)]

    kinds: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for step, time_ms in zip(program.steps, times, strict=True):
        for total, value in enumerate((1, time_ms, flop(step))):
            kinds[step.primitive.name][total] += value
    print(f"{isa.cpuinfo('model name')} ({', '.join(isa.extensions())}), oneDNN {kernels.library.version}")
    print(f"{options.photos} photos in {options.kind}: {sum(times):.1f} ms, of it forward "
          f"{sum(times[: program.forward]):.1f}; {sum(times) / options.photos:.2f} ms per photo; arena "
          f"{program.arena / 1e6:.0f} MB; weights' forms and the head's {forms_ms:.1f} ms\n")  # fmt: skip
    print("| kind of step | steps | ms | ms per photo | share | GFLOP/s |\n" + "|---" * 6 + "|")
    for name, (count, time_ms, work) in sorted(kinds.items(), key=lambda item: -item[1][1]):
        rate = f"{work / time_ms / 1e6:.0f}" if work else ""
        print(f"| {name} | {count} | {time_ms:.1f} | {time_ms / options.photos:.2f} | "
              f"{time_ms / sum(times):.1%} | {rate} |")  # fmt: skip
    print("\n| step | kind | ms | GFLOP/s | source, weights, result | implementation |\n" + "|---" * 6 + "|")
    for number in sorted(range(len(times)), key=lambda each: -times[each])[: options.top]:
        step, rate = program.steps[number], flop(program.steps[number]) / times[number] / 1e6
        shown = f"{rate:.0f}" if rate else ""
        print(f"| {number} | {step.primitive.name} | {times[number]:.2f} | {shown} | {told(step)} |")


if __name__ == "__main__":
    main()
