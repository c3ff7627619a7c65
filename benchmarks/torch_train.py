"""PyTorch doing what `birdsonnx train` does, as fast as it goes on a CPU: a peer of finetune.py.

The same folded ResNet50 with the weights of the same .onnx, channels_last, fused Adam, photos decoded once by
as many threads as cores and held in memory. Prints one JSON object; `{"missing": reason}` where PyTorch
cannot compile here. Needs torch, onnx, numpy and Pillow, and nothing of birdsonnx.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.steps import Steps

CORES = len(os.sched_getaffinity(0))
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}


class ResNet50(nn.Module):
    """Keras' ResNet50 with BatchNorm folded; stages as children, so that a part can be frozen."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.weights = nn.ParameterDict()
        for tensor in onnx.load(path).graph.initializer:
            layer, _, role = tensor.name.rpartition("/")
            if role in ("kernel", "bias") and (layer.endswith("_conv") or layer == "dense"):
                value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
                if value.dim() == 4:
                    value = value.contiguous(memory_format=torch.channels_last)
                self.weights[f"{layer}-{role}"] = nn.Parameter(value)

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        kernel, bias = self.weights[f"{name}_conv-kernel"], self.weights[f"{name}_conv-bias"]
        return functional.conv2d(x, kernel, bias, stride, padding)

    def stages(self, x: Tensor, first: int, last: int) -> Tensor:
        """Stage 1 is the stem, 2 to 5 the residual stages."""
        if first == 1:
            x = functional.relu_(self.conv(x, "conv1", 2, 3))
            x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(max(first, 2), last + 1):
            for block in range(1, BLOCKS[stage] + 1):
                name = f"conv{stage}_block{block}"
                stride = 2 if block == 1 and stage > 2 else 1
                y = functional.relu_(self.conv(x, f"{name}_1", stride))
                y = functional.relu_(self.conv(y, f"{name}_2", 1, 1))
                y = self.conv(y, f"{name}_3")
                x = functional.relu_(y + (self.conv(x, f"{name}_0", stride) if block == 1 else x))
        return x

    def head(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.weights["dense-kernel"] + self.weights["dense-bias"]


def photos_of(folder: Path) -> tuple[Tensor, Tensor]:
    """uint8 BGR `[photos, 224, 224, 3]` and labels."""
    classes = sorted(path.name for path in folder.iterdir())
    files = [
        (path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())
    ]

    def read(entry: tuple[Path, int]) -> np.ndarray:
        image = Image.open(entry[0]).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        return np.asarray(image)[:, :, ::-1]

    with ThreadPoolExecutor(CORES) as pool:
        pixels = np.stack(list(pool.map(read, files)))
    return torch.from_numpy(pixels), torch.tensor([label for _, label in files])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", choices=("all", "conv5"), default="all")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--test", action="store_true", help="evaluate valid/ after each epoch")
    parser.add_argument(
        "--gradient", type=Path, help="write that of all photos of train/ there (.npz), no more"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    network = ResNet50(arguments.model)
    frozen = 4 if arguments.train == "conv5" else 0
    for name, weight in network.weights.items():
        weight.requires_grad = not frozen or name.startswith(("conv5", "dense"))
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trained, 1e-4, fused=True)
    mean = torch.tensor(CAFFE_MEAN_BGR)
    pixels, labels = photos_of(arguments.data / "train")

    def forward(pixels: Tensor) -> Tensor:
        x = (pixels.float() - mean).permute(0, 3, 1, 2)  # channels_last as it is
        if frozen:
            with torch.no_grad():
                x = network.stages(x, 1, frozen)
        return network.head(network.stages(x, frozen + 1, 5))

    answer = torch.compile(forward) if arguments.compile else forward

    def backward(batch: Tensor) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            loss = functional.cross_entropy(answer(pixels[batch]).float(), labels[batch])
        loss.backward()
        return loss.item()

    steps, losses, accuracies = Steps(), [], []
    if arguments.gradient:
        losses.append(backward(torch.arange(len(labels))))
        found = {name.replace("-", "/"): weight.grad.numpy() for name, weight in network.weights.items()}
        np.savez(arguments.gradient, **found)
        arguments.epochs = 0
    for epoch in range(1, arguments.epochs + 1):
        order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(len(labels)))
        for batch in order.split(arguments.batch):
            try:
                losses.append(backward(batch))
            except torch._dynamo.exc.TorchDynamoException as error:  # no compiler, for one
                reason = " ".join(str(error).splitlines()[:2])  # which of its parts, and what
                print(json.dumps({"missing": reason}))
                return
            optimizer.step()
            steps.note()
        if arguments.test:
            if epoch == 1:
                test_pixels, test_labels = photos_of(arguments.data / "valid")
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                answers = torch.cat(
                    [forward(piece).argmax(1) for piece in test_pixels.split(arguments.batch)]
                )
            accuracies.append(float((answers == test_labels).float().mean()))
    found = {
        **steps.figures(),
        "losses": losses,
        "accuracies": accuracies,
        "precision": "bf16 autocast" if arguments.bf16 else "float32",
        "version": torch.__version__,
    }
    if arguments.bf16 and not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        found["precision"] += ", without instructions for it"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
