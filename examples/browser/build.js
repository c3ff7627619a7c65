// Put the page together: npm run build -- model.onnx [folder, default: dist]
//
// What comes out are files alone: any web server can offer them, from any folder.

import { copyFile, cp, mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const [model, folder = join(here, "dist")] = process.argv.slice(2);
if (!model) {
  console.error("which model? npm run build -- model.onnx");
  process.exit(2);
}

const page = join(folder, "page");
const runtime = join(here, "node_modules/onnxruntime-web/dist");

await rm(folder, { recursive: true, force: true });
await cp(join(here, "../../birdsonnx/serving/page"), page, { recursive: true }); // the page that `serve` shows
await copyFile(join(page, "index.html"), join(folder, "index.html"));
await cp(join(here, "../javascript"), join(page, "javascript"), { recursive: true });
await copyFile(join(here, "main.js"), join(page, "main.js")); // and not a server names the photos
await mkdir(join(page, "runtime"));
for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  await copyFile(join(runtime, name), join(page, "runtime", name));
}
await copyFile(model, join(folder, "model.onnx"));
console.log(`made ${folder}`);
