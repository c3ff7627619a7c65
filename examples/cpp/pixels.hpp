// A picture, and what a model's transforms make of it: with Pillow's resize, so that the answer is that of
// `birdsonnx predict`. The same in JavaScript: ../javascript/pixels.js.
#pragma once

#include <json/json.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

using Error = std::runtime_error;

struct Picture {
  int width, height, channels;
  std::vector<uint8_t> data = std::vector<uint8_t>(size_t(width) * height * channels);

  size_t at(int x, int y) const { return (size_t(y) * width + x) * channels; }
};

inline constexpr int BITS = 22;  // of Pillow's fixed-point weights: 32 - 8 of a pixel - 2

/**
 * The picture with another width (`across`) or height. The filter is a triangle as wide as the scale (antialiased
 * bilinear); its weights are whole numbers that add up to about 1 << BITS.
 */
inline Picture pass(const Picture& from, int outputs, bool across) {
  const int inputs = across ? from.width : from.height, lines = across ? from.height : from.width;
  if (inputs == outputs) return from;
  Picture out{across ? outputs : from.width, across ? from.height : outputs, from.channels};
  const size_t step = across ? from.channels : from.at(0, 1);
  const double scale = double(inputs) / outputs, support = std::max(scale, 1.0);
  for (int output = 0; output < outputs; output++) {
    const double center = (output + 0.5) * scale;
    const int first = std::max(0, int(center - support + 0.5)), end = std::min(inputs, int(center + support + 0.5));
    std::vector<double> shares;
    for (int input = first; input < end; input++) {
      shares.push_back(std::max(0.0, 1 - std::abs((input - center + 0.5) * (1 / support))));
    }
    const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
    std::vector<int> weights;
    for (double share : shares) weights.push_back(int(0.5 + share / total * (1 << BITS)));
    for (int line = 0; line < lines; line++) {
      const uint8_t* pixel = &from.data[across ? from.at(first, line) : from.at(line, first)];
      uint8_t* to = &out.data[across ? out.at(output, line) : out.at(line, output)];
      for (int channel = 0; channel < from.channels; channel++) {
        int sum = 1 << (BITS - 1);  // for rounding
        for (size_t i = 0; i < weights.size(); i++) sum += pixel[i * step + channel] * weights[i];
        to[channel] = std::min(255, sum >> BITS);
      }
    }
  }
  return out;
}

/** Two passes with whole pixels between, in the order of Pillow 13; older ones always go across first. */
inline Picture resize(const Picture& from, int width, int height) {
  const bool is_tall = from.height - height > std::max(0, 2 * (from.width - width));
  return is_tall ? pass(pass(from, height, false), width, true) : pass(pass(from, width, true), height, false);
}

inline Picture center_crop(const Picture& from, int width, int height) {
  if (from.width < width || from.height < height) throw Error("it has too few pixels for this model");
  Picture out{width, height, from.channels};
  for (int y = 0; y < height; y++) {
    const size_t start = from.at((from.width - width) / 2, (from.height - height) / 2 + y);
    std::copy_n(&from.data[start], out.at(0, 1), &out.data[out.at(0, y)]);
  }
  return out;
}

/** Each of a model's transforms in turn; `normalize` is in the network. */
inline Picture transformed(Picture picture, const Json::Value& transforms) {
  for (const auto& step : transforms) {
    const std::string kind = step.getMemberNames().at(0);
    const Json::Value& size = step[kind];
    if (kind == "resize") {
      picture = resize(picture, size[0].asInt(), size[1].asInt());
    } else if (kind == "resize_shorter") {
      const int64_t side = size.asInt(), shorter = std::min(picture.width, picture.height);
      picture = resize(picture, int(picture.width * side / shorter), int(picture.height * side / shorter));
    } else if (kind == "center_crop") {
      picture = center_crop(picture, size[0].asInt(), size[1].asInt());
    } else if (kind != "normalize") {
      throw Error("the model wants the transform " + kind + ", which this example does not know");
    }
  }
  return picture;
}

/** The longer side of a resize that comes first, or 0. */
inline int first_resize(const Json::Value& transforms) {
  for (const auto& step : transforms) {
    if (step.isMember("normalize")) continue;
    if (step.isMember("resize_shorter")) return step["resize_shorter"].asInt();
    return step.isMember("resize") ? std::max(step["resize"][0].asInt(), step["resize"][1].asInt()) : 0;
  }
  return 0;
}
