// tests/data/quant.safetensors: blocks, values and codes by an independent implementation;
// make_quant_fixture.py writes it.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "format/dtype.h"
#include "format/safetensors.h"
#include "testing.h"

namespace snug::testing {

class QuantFixture {
 public:
  QuantFixture() {
    auto file = SafetensorsFile::Open(SourcePath("tests/data/quant.safetensors"));
    EXPECT_TRUE(file.ok()) << file.error().message;
    file_ = std::move(file).value();
  }
  template <class T>
  std::vector<T> Read(const std::string& name) const {
    const SafetensorInfo* info = file_.Find(name);
    EXPECT_NE(info, nullptr) << name;
    if (info == nullptr) return {};
    std::vector<uint8_t> bytes(info->bytes);
    uint64_t got = 0;
    EXPECT_TRUE(file_.file().ReadAt(info->offset, bytes.data(), bytes.size(), &got).ok());
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  std::vector<uint8_t> Blocks(DType type) const { return Read<uint8_t>(Name(type) + ".blocks"); }
  std::vector<float> Values(DType type) const { return Read<float>(Name(type) + ".values"); }
  std::vector<float> Input() const { return Read<float>("input"); }
  std::vector<uint8_t> Encoded(DType type) const { return Read<uint8_t>(Name(type) + ".encoded"); }

 private:
  static std::string Name(DType type) { return std::string(Info(type).name); }
  SafetensorsFile file_;
};

}  // namespace snug::testing
