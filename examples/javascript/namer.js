// A model that names photos, on whichever ONNX Runtime is given: onnxruntime-node or onnxruntime-web.

import { metadata } from "./model_file.js";
import { transformed, withChannels } from "./pixels.js";

export class Namer {
  /** @param content the .onnx as a Uint8Array */
  static async open(ort, content) {
    const { classes, transforms } = metadata(content);
    if (!classes) throw new Error("this is no birdsonnx model with class names");
    const session = await ort.InferenceSession.create(content);
    const [, height, width, channels] = session.inputMetadata[0].shape;
    return new Namer(ort, session, classes, channels, transforms ?? [{ resize: [width, height] }]);
  }

  constructor(ort, session, classes, channels, transforms) {
    Object.assign(this, { ort, session, classes, channels, transforms });
  }

  /** A photo's likeliest names: [[name, probability], …]. Its pixels are {width, height, data}, RGBA, upright. */
  async name(photo, count = 5) {
    const { width, height, channels, data } = transformed(withChannels(photo, this.channels), this.transforms);
    const images = new this.ort.Tensor("uint8", data, [1, height, width, channels]);
    const { log_probs } = await this.session.run({ images });
    return Array.from(log_probs.data, (value, index) => [this.classes[index], Math.exp(value)])
      .sort(([, one], [, other]) => other - one)
      .slice(0, count);
  }
}
