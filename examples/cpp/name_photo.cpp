// Name the birds of photos: name_photo model.onnx bird.jpg …
//
// OpenVINO runs the network, and gives what is said in the model's metadata.

#include <json/json.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <openvino/frontend/manager.hpp>
#include <openvino/runtime/core.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "photo_file.hpp"
#include "pixels.hpp"

class Namer {
 public:
  explicit Namer(const std::string& path) {
    const auto frontend = ov::frontend::FrontEndManager().load_by_framework("onnx");
    const auto model = frontend->convert(frontend->load(path));
    const auto metadata = [&](const std::string& key) {
      Json::Value value;
      if (model->has_rt_info("framework", key)) {
        std::istringstream(model->get_rt_info<std::string>("framework", key)) >> value;
      }
      return value;
    };
    classes = metadata("birdsonnx.classes");
    if (classes.empty()) throw Error("this is no birdsonnx model with class names");
    const auto shape = model->input().get_partial_shape();
    height = int(shape[1].get_length()), width = int(shape[2].get_length()), channels = int(shape[3].get_length());
    transforms = metadata("birdsonnx.transforms");
    if (transforms.isNull()) {
      transforms[0]["resize"][0] = width;
      transforms[0]["resize"][1] = height;
    }
    // Left alone, OpenVINO computes in bfloat16 where the processor can.
    const auto precision = ov::hint::inference_precision(ov::element::f32);
    network = ov::Core().compile_model(model, "CPU", precision).create_infer_request();
  }

  /** Prints a photo's five likeliest names, each with its probability. */
  void name(const std::string& path) {
    Picture picture = transformed(read_photo(path, channels, first_resize(transforms)), transforms);
    if (picture.width != width || picture.height != height) throw Error("it has another size than the network takes");

    const ov::Shape shape{1, size_t(height), size_t(width), size_t(channels)};
    network.set_input_tensor(ov::Tensor(ov::element::u8, shape, picture.data.data()));
    network.infer();
    const float* log_probs = network.get_tensor("log_probs").data<float>();
    std::vector<int> order(classes.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int one, int other) { return log_probs[one] > log_probs[other]; });
    order.resize(std::min<size_t>(5, order.size()));
    std::printf("%s\n", path.c_str());
    for (int index : order) std::printf("  %.4f  %s\n", std::exp(log_probs[index]), classes[index].asCString());
  }

 private:
  Json::Value classes, transforms;
  int height, width, channels;
  ov::InferRequest network;
};

int main(int count, char** words) {
  if (count < 3) {
    std::fprintf(stderr, "which photos? name_photo model.onnx bird.jpg …\n");
    return 2;
  }
  int word = 1;
  try {
    Namer namer(words[word]);
    while (++word < count) namer.name(words[word]);
  } catch (const std::exception& error) {
    std::string text = error.what();  // of OpenVINO the last line says what is wrong, those before where in its source
    text.erase(text.find_last_not_of(" \n") + 1);
    std::fprintf(stderr, "%s: %s\n", words[word], text.substr(text.rfind('\n') + 1).c_str());
    return 2;
  }
}
