"""Name the bird of a photo: python name_photo.py model.onnx bird.jpg"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
metadata = session.get_modelmeta().custom_metadata_map.items()
about = {key: json.loads(text) for key, text in metadata if key.startswith("birdsonnx.")}
_, height, width, _ = session.get_inputs()[0].shape
photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
for step in about.get("birdsonnx.transforms", [{"resize": [width, height]}]):
    if "resize_shorter" in step:
        step["resize"] = [side * step["resize_shorter"] // min(photo.size) for side in photo.size]
    size = step.get("resize") or step["center_crop"]
    left, top = ((have - want) // 2 for have, want in zip(photo.size, size, strict=True))
    cut = None if "resize" in step else (left, top, left + size[0], top + size[1])
    photo = photo.resize(size, Image.Resampling.BILINEAR, cut)
log_probs = session.run(["log_probs"], {"images": np.asarray(photo)[None]})[0][0]
for index in np.argsort(-log_probs)[:5]:
    print(f"{np.exp(log_probs[index]):.4f}  {about['birdsonnx.classes'][index]}")
