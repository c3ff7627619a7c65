"""A user's program, which `make lint` checks with mypy and nobody runs: what is right passes, what is wrong
is noticed, since mypy reports an `ignore` that ignores nothing."""

import birdsonnx
from birdsonnx import Model

model: Model = birdsonnx.load("model.onnx", engine="auto", threads=2)
names: list[str] = [photo.class_name for photo in model.predict(["a.jpg", "b.jpg"], top_k=3)]
best: tuple[str, float] = model.predict("a.jpg")[0].top[0]
accuracy: float = model.evaluate("data").accuracy
loss: float = birdsonnx.train({"neural_network": {}}, resume=True).epochs[-1].train_loss
made: Model = birdsonnx.export("a.keras", "a.onnx", labels=["a", "b"])

birdsonnx.load(3)  # type: ignore[arg-type]
birdsonnx.load("a", engine="other")  # type: ignore[arg-type]
model.nothing  # type: ignore[attr-defined]  # noqa: B018
birdsonnx.export(model, "a.onnx")  # type: ignore[arg-type]
