// A photo becomes the network's pixels as in its training: the transforms that the model names, with Pillow's
// resize, so that the answer is that of `birdsonnx predict`. A picture is {width, height, channels, data}.

const BITS = 22; // of Pillow's fixed-point weights: 32 - 8 of a pixel - 2

/** RGBA, as canvases and decoders give it, without its alpha; gray by Rec. 601's luma, as Pillow has it. */
export function withChannels({ width, height, data }, channels) {
  const out = new Uint8Array(width * height * channels);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    const [red, green, blue] = [data[from], data[from + 1], data[from + 2]];
    if (channels === 1) {
      out[to++] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
    } else {
      out[to++] = red;
      out[to++] = green;
      out[to++] = blue;
    }
  }
  return { width, height, channels, data: out };
}

/**
 * The weights of a triangle filter that is as wide as the scale (antialiased bilinear): for each output pixel the
 * first input pixel, and whole numbers that add up to about 2 ** BITS.
 */
function weights(inputs, outputs) {
  const scale = inputs / outputs;
  const support = Math.max(scale, 1);
  return Array.from({ length: outputs }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(inputs, Math.trunc(center + support + 0.5));
    const each = [];
    for (let input = first; input < end; input++) {
      each.push(Math.max(0, 1 - Math.abs((input - center + 0.5) * (1 / support)))); // rounded as Pillow rounds
    }
    const sum = each.reduce((total, weight) => total + weight, 0);
    return { first, each: each.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** BITS)) };
  });
}

/** The picture with another width (`across`) or height: one pass along each line. */
function pass({ width, height, channels, data }, outputs, across) {
  const [inputs, lines] = across ? [width, height] : [height, width];
  if (inputs === outputs) return { width, height, channels, data };
  const out = { width: across ? outputs : width, height: across ? height : outputs, channels };
  out.data = new Uint8Array(out.width * out.height * channels);
  const [step, line] = across ? [channels, width * channels] : [width * channels, channels];
  const [outStep, outLine] = across ? [channels, outputs * channels] : [width * channels, channels];
  const table = weights(inputs, outputs);
  for (let index = 0; index < lines; index++) {
    table.forEach(({ first, each }, output) => {
      for (let channel = 0; channel < channels; channel++) {
        let place = index * line + first * step + channel;
        let sum = 2 ** (BITS - 1); // for rounding
        for (const weight of each) {
          sum += data[place] * weight;
          place += step;
        }
        out.data[index * outLine + output * outStep + channel] = Math.min(255, sum >> BITS);
      }
    });
  }
  return out;
}

/**
 * Two passes with whole pixels between: the same bits as the `resize(…, BILINEAR)` of Pillow 13, which goes down
 * first where that takes away more than twice as many lines as across; older ones always go across first.
 */
export function resize(picture, width, height) {
  const isTall = picture.height - height > Math.max(0, 2 * (picture.width - width));
  return isTall
    ? pass(pass(picture, height, false), width, true)
    : pass(pass(picture, width, true), height, false);
}

export function centerCrop({ width, height, channels, data }, newWidth, newHeight) {
  const [left, top] = [Math.floor((width - newWidth) / 2), Math.floor((height - newHeight) / 2)];
  if (left < 0 || top < 0) throw new Error(`${width} x ${height} pixels are too few for this model`);
  const out = new Uint8Array(newWidth * newHeight * channels);
  for (let row = 0; row < newHeight; row++) {
    const start = ((top + row) * width + left) * channels;
    out.set(data.subarray(start, start + newWidth * channels), row * newWidth * channels);
  }
  return { width: newWidth, height: newHeight, channels, data: out };
}

function resizeShorter(picture, side) {
  const shorter = Math.min(picture.width, picture.height);
  const [width, height] = [picture.width, picture.height].map((each) => Math.floor((each * side) / shorter));
  return resize(picture, width, height);
}

const STEPS = {
  resize: (picture, [width, height]) => resize(picture, width, height),
  resize_shorter: resizeShorter,
  center_crop: (picture, [width, height]) => centerCrop(picture, width, height),
};

/** Each of a model's transforms in turn; `normalize` is in the network. */
export function transformed(picture, transforms) {
  for (const step of transforms) {
    const [[kind, size]] = Object.entries(step);
    if (kind === "normalize") continue;
    if (!STEPS[kind]) throw new Error(`the model wants the transform ${kind}, which this example does not know`);
    picture = STEPS[kind](picture, size);
  }
  return picture;
}
