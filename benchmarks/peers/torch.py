"""PyTorch: the weights of the same .onnx (BatchNorm folded), channels_last, eager or compiled, float32 or
bf16 autocast."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Peer, preprocessed, serve
from benchmarks.peers.timing import Array


def load(settings: dict[str, Any]) -> Peer:
    import torch
    from torch.nn import functional

    from benchmarks.torch_train import ResNet50

    torch.set_num_threads(settings["threads"])
    network = ResNet50(Path(settings["model"])).eval()

    def forward(x: Any) -> Any:
        return functional.log_softmax(network.head(network.stages(x, 1, 5)).float(), 1)

    if settings.get("compiled"):
        import torch._inductor.config

        torch._inductor.config.freezing = True  # 1.25 x in float32, 1.4 x in bf16
        forward = torch.compile(forward)

    def answers(batches: Iterable[Array]) -> Iterable[Array]:
        # One autocast for all batches: it keeps the weights it has cast until it is left.
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=settings["precision"] == "bf16"):
            for batch in batches:
                yield forward(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy()  # NHWC is channels_last

    return Peer(answers, ("numpy", "torch"), preprocessed)


if __name__ == "__main__":
    serve(load)
