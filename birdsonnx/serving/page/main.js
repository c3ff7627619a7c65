// The server names the photos: POST /predict.

import { start } from "./page.js";

const TRIES = 5;
const UNREACHABLE = "the server does not answer; was it stopped?";

const ask = (address, options) =>
  fetch(address, options).catch(() => {
    throw new Error(UNREACHABLE);
  });

const ready = ask("health").then((answer) => answer.json());

async function name(file) {
  const limit = (await ready).max_upload_mb;
  if (file.size > limit * 2 ** 20) throw new Error(`larger than the ${limit} MB that this server takes`);
  const form = new FormData();
  form.append("photo", file);
  for (let tried = 1; ; tried++) {
    const answer = await ask("predict", { method: "POST", body: form });
    if (answer.status === 503 && tried < TRIES) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      continue;
    }
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found.predictions[0];
  }
}

start({
  ready: ready.then(({ model, classes, engine }) => ({
    about: `The model knows ${classes} kinds, and gives every photo the likeliest of them. Photos go to this server, which keeps none.`,
    note: `${model}, ${engine}`,
  })),
  name,
});
