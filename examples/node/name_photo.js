// Name the birds of photos: node name_photo.js model.onnx bird.jpg …

import { readFile } from "node:fs/promises";
import ort from "onnxruntime-node";
import sharp from "sharp";
import { Namer } from "../javascript/namer.js";

const [model, ...photos] = process.argv.slice(2);
const namer = await Namer.open(ort, await readFile(model));
for (const photo of photos) {
  const upright = sharp(photo).autoOrient().toColourspace("srgb").ensureAlpha();
  const { data, info } = await upright.raw().toBuffer({ resolveWithObject: true });
  console.log(photo);
  for (const [name, probability] of await namer.name({ ...info, data })) {
    console.log(`  ${probability.toFixed(4)}  ${name}`);
  }
}
