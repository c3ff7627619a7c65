// What a birdsonnx .onnx says about itself. The JavaScript runtimes do not give a model's metadata, so they are
// read from the file: a protobuf, of which field 14 holds pairs of a key (1) and a value (2), both texts.

const METADATA = 14;

/** Gives [field number, bytes] of each field that has a length; others, such as versions, are passed over. */
function* fields(bytes) {
  let place = 0;
  const number = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[place++];
      value += (byte % 128) * factor;
      if (byte < 128) return value;
    }
  };
  while (place < bytes.length) {
    const tag = number();
    const kind = tag % 8;
    if (kind === 0) number();
    else if (kind === 1) place += 8;
    else if (kind === 5) place += 4;
    else {
      const length = number();
      yield [Math.floor(tag / 8), bytes.subarray(place, place + length)];
      place += length;
    }
  }
}

/** The metadata of a model, each parsed from its JSON: {classes, transforms, …}. */
export function metadata(bytes) {
  const text = new TextDecoder();
  const found = {};
  for (const [number, pair] of fields(bytes)) {
    if (number !== METADATA) continue;
    const { 1: key, 2: value } = Object.fromEntries(fields(pair));
    const [, name] = /^birdsonnx\.(.*)$/.exec(text.decode(key)) ?? [];
    if (name) found[name] = JSON.parse(text.decode(value));
  }
  return found;
}
