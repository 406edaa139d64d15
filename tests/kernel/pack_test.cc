// Packing: bytes, padding, and rows read back.
#include <gtest/gtest.h>

#include <cstring>

#include "kernel/matmul.h"
#include "kernel/targets.h"
#include "kernel/weights.h"

namespace snug {
namespace {

using testing::Aligned;
using testing::kAllTypes;
using testing::RandomWeights;
using testing::WeightAt;

TEST(Pack, BytesAreTheFilesBytes) {
  for (const DType type : kAllTypes) {
    for (const size_t cols : {512, 1536, 8960}) {
      // Two rows of f16 scales may be padded to 64 bytes, and nothing else.
      const size_t file = 16 * RowBytes(type, cols);
      EXPECT_GE(PanelBytes(type, cols), file) << Info(type).name;
      EXPECT_LE(PanelBytes(type, cols), file + 32) << Info(type).name;
      EXPECT_EQ(PanelBytes(type, cols) % 64, 0u);
      EXPECT_EQ(PackedBytes(type, 33, cols), 3 * PanelBytes(type, cols));
    }
  }
}

TEST(Pack, UnpackRowEqualsDequantize) {
  std::mt19937 rng(1);
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const DType type : kAllTypes) {
      const bool floats = !UsesInt8(type);
      const size_t block = Info(type).block;
      for (const size_t cols :
           {floats ? 1 : block, floats ? 67 : 3 * block, floats ? 160 : 6 * block}) {
        for (const size_t rows : {1, 15, 16, 37}) {
          const std::vector<uint8_t> raw = RandomWeights(type, rows, cols, rng);
          const size_t bytes = PackedBytes(type, rows, cols);
          Aligned packed(bytes + 64);
          std::memset(packed.get(), 0xa5, bytes + 64);
          PackPanels(type, raw.data(), rows, cols, packed.get());
          for (size_t i = bytes; i < bytes + 64; ++i) ASSERT_EQ(packed.get()[i], 0xa5);
          const PackedMatrix w{packed.get(), type, static_cast<uint32_t>(rows),
                               static_cast<uint32_t>(cols)};
          std::vector<float> got(cols), want(cols);
          for (size_t r = 0; r < rows; ++r) {
            UnpackRow(w, r, got.data());
            Dequantize(type, raw.data() + r * RowBytes(type, cols), cols, want.data());
            ASSERT_EQ(std::memcmp(got.data(), want.data(), cols * sizeof(float)), 0)
                << Info(type).name << " row " << r << " of " << rows << " x " << cols;
            for (size_t c = 0; c < cols; ++c) {
              ASSERT_EQ(got[c], static_cast<float>(WeightAt(type, raw, cols, r, c)))
                  << Info(type).name << " row " << r << " column " << c;
            }
          }
        }
      }
    }
  }
  UseTarget(0);
}

TEST(Pack, PanelsPackedApartEqualPanelsPackedTogether) {
  std::mt19937 rng(2);
  for (const DType type : kAllTypes) {
    const size_t cols = 512, rows = 43, panel = PanelBytes(type, cols);
    const std::vector<uint8_t> raw = RandomWeights(type, rows, cols, rng);
    Aligned together(PackedBytes(type, rows, cols)), apart(PackedBytes(type, rows, cols));
    PackPanels(type, raw.data(), rows, cols, together.get());
    for (size_t r = 0; r < rows; r += 16) {
      PackPanels(type, raw.data() + r * RowBytes(type, cols), std::min<size_t>(16, rows - r), cols,
                 apart.get() + r / 16 * panel);
    }
    EXPECT_EQ(std::memcmp(together.get(), apart.get(), PackedBytes(type, rows, cols)), 0)
        << Info(type).name;
  }
}

}  // namespace
}  // namespace snug
