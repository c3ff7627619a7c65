// The pixels of a photo's file, upright: decoded by TurboJPEG or libpng.
#pragma once

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "pixels.hpp"

/**
 * RGBA of a JPEG. As in birdsonnx, at 1/8, 1/4 or 1/2 of its size where that leaves twice as many pixels each way as
 * the first step, a resize, makes of them (`resized_to`; 0 where it is none).
 */
inline Picture read_jpeg(const std::string& file, int resized_to) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(file.data());
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  const auto check = [&](int status) { return status == 0 ? 0 : throw Error(tjGetErrorStr2(decoder.get())); };
  int width, height, sampling, colors;
  check(tjDecompressHeader3(decoder.get(), bytes, file.size(), &width, &height, &sampling, &colors));
  int scale = resized_to > 0 ? 8 : 1;
  while (scale > 1 && (width % scale || height % scale || std::min(width, height) / scale < 2 * resized_to)) scale /= 2;
  Picture photo{width / scale, height / scale, 4};
  uint8_t* out = photo.data.data();
  check(tjDecompress2(decoder.get(), bytes, file.size(), out, photo.width, 0, photo.height, TJPF_RGBA, 0));
  return photo;
}

/** RGBA of a PNG. Where a file states a gamma far from that of sRGB, libpng heeds it, and birdsonnx does not. */
inline Picture read_png(const std::string& file) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, void (*)(png_imagep)> freed(&image, png_image_free);
  if (!png_image_begin_read_from_memory(&image, file.data(), file.size())) throw Error(image.message);
  if (image.format & PNG_FORMAT_FLAG_LINEAR) throw Error("it has 16 bits a channel; save it with 8");
  image.format = PNG_FORMAT_RGBA;
  Picture photo{int(image.width), int(image.height), 4};
  if (!png_image_finish_read(&image, nullptr, photo.data.data(), 0, nullptr)) throw Error(image.message);
  return photo;
}

/** How a photo lies, 1 to 8, as its EXIF says: a TIFF, in whose first directory that is tag 0x0112. */
inline int orientation(const std::string& file) {
  const size_t in_jpeg = file.find(std::string("Exif\0\0", 6)), in_png = file.find("eXIf");
  if (in_jpeg == std::string::npos && in_png == std::string::npos) return 1;
  const size_t tiff = in_jpeg != std::string::npos ? in_jpeg + 6 : in_png + 4;
  const auto number = [&](size_t at, int bytes) {
    size_t value = 0;
    for (int i = 0; i < bytes; i++) {
      const size_t place = tiff + at + (file[tiff] == 'I' ? bytes - 1 - i : i);
      value = value << 8 | (place < file.size() ? uint8_t(file[place]) : 0);
    }
    return value;
  };
  size_t entry = number(4, 4) + 2;
  for (size_t left = number(entry - 2, 2); left > 0; left--, entry += 12) {
    if (number(entry, 2) == 0x0112) return int(number(entry + 8, 2));
  }
  return 1;
}

/** From RGBA, without its alpha, and upright; gray by Rec. 601's luma, as Pillow has it. */
inline Picture upright(const Picture& photo, int lies, int channels) {
  const bool is_turned = lies >= 5 && lies <= 8;
  Picture out{is_turned ? photo.height : photo.width, is_turned ? photo.width : photo.height, channels};
  auto to = out.data.begin();
  for (int y = 0; y < out.height; y++) {
    for (int x = 0; x < out.width; x++) {
      auto [across, down] = is_turned ? std::pair(y, x) : std::pair(x, y);
      if (lies == 2 || lies == 3 || lies == 7 || lies == 8) across = photo.width - 1 - across;
      if (lies == 3 || lies == 4 || lies == 6 || lies == 7) down = photo.height - 1 - down;
      const uint8_t* rgb = &photo.data[photo.at(across, down)];
      if (channels == 3) to = std::copy_n(rgb, 3, to);
      else *to++ = (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16;
    }
  }
  return out;
}

inline Picture read_photo(const std::string& path, int channels, int resized_to) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw Error("it cannot be opened");
  const std::string file{std::istreambuf_iterator<char>(stream), {}};
  if (file.rfind("\xFF\xD8", 0) == 0) return upright(read_jpeg(file, resized_to), orientation(file), channels);
  if (file.rfind("\x89PNG", 0) == 0) return upright(read_png(file), orientation(file), channels);
  throw Error("it is neither a JPEG nor a PNG");
}
