// The browser itself names the photos, with onnxruntime-web: they leave the machine at no time.

import { Namer } from "./javascript/namer.js";
import { start } from "./page.js";
import * as ort from "./runtime/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
ort.env.logLevel = "error";

async function open() {
  const answer = await fetch(new URL("../model.onnx", import.meta.url));
  if (!answer.ok) throw new Error(`there is no model.onnx beside this page (${answer.status})`);
  return Namer.open(ort, new Uint8Array(await answer.arrayBuffer()));
}

/** Decode a photo: upright, and without a change of its colours. */
async function pixels(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, options).catch(() => {
    throw new Error("this browser cannot decode it; is it a photo?");
  });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  canvas.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.getImageData(0, 0, width, height);
}

const model = open();

start({
  ready: model.then(({ classes }) => ({
    about: `The model knows ${classes.length} kinds, and gives every photo the likeliest of them. Photos stay on this computer.`,
    note: "model.onnx, named by this browser with ONNX Runtime Web",
  })),
  name: async (file) => ({ top: await (await model).name(await pixels(file)) }),
});
