// Writes small Hugging Face folders for tests.
#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "format/dtype.h"
#include "testing.h"

namespace snug::testing {

struct HfTensorData {
  std::string name, dtype;
  std::vector<uint64_t> shape;
  std::string bytes;
};

inline void WriteText(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline void WriteSafetensors(const std::string& path, const std::vector<HfTensorData>& tensors) {
  Json header = Json::object();
  std::string data;
  for (const HfTensorData& t : tensors) {
    header[t.name] = {{"dtype", t.dtype},
                      {"shape", t.shape},
                      {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
    data += t.bytes;
  }
  const std::string text = DumpJson(header);
  const uint64_t n = text.size();
  std::string head(8, '\0');
  std::memcpy(head.data(), &n, 8);
  WriteText(path, head + text + data);
}

// Values as F32, BF16 or F16; other types get a byte per value.
inline HfTensorData MakeTensor(const std::string& name, const std::string& dtype,
                               std::vector<uint64_t> shape, const std::vector<float>& values) {
  HfTensorData t{name, dtype, std::move(shape), {}};
  for (const float v : values) {
    const uint16_t half = dtype == "F16" ? FloatToHalf(v) : FloatToBFloat(v);
    if (dtype == "F32") t.bytes.append(reinterpret_cast<const char*>(&v), 4);
    if (dtype == "F16" || dtype == "BF16") t.bytes.append(reinterpret_cast<const char*>(&half), 2);
    if (dtype[0] == 'F' && dtype[1] == '8') t.bytes.push_back('\0');
  }
  return t;
}

// Values counting up from `start`, as many as the shape holds.
inline HfTensorData Counting(const std::string& name, const std::string& dtype,
                             std::vector<uint64_t> shape, float start = 0) {
  uint64_t n = 1;
  for (uint64_t d : shape) n *= d;
  std::vector<float> values(n);
  for (uint64_t i = 0; i < n; ++i) values[i] = start + static_cast<float>(i);
  return MakeTensor(name, dtype, std::move(shape), values);
}

}  // namespace snug::testing
