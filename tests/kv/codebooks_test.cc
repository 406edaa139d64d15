// Codebooks: k-means, and the files that hold them.
#include "kv/codec/codebooks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kv/codec/kmeans.h"
#include "testing.h"

namespace snug {
namespace {

struct Sample {
  Sample(size_t points, size_t coordinates)
      : dims(coordinates), n(points), x(dims * Stride()), codes(Stride()), d(Stride()) {}
  size_t Stride() const { return (n + kPointBlock - 1) / kPointBlock * kPointBlock; }
  std::vector<double> Run(uint64_t seed, std::vector<float>* centroids, int iterations = 25) {
    centroids->resize(kCentroids * dims);
    return KMeans({x.data(), Stride(), dims, n}, iterations, seed, {codes.data(), d.data()},
                  centroids->data());
  }
  size_t dims, n;
  std::vector<float> x;
  std::vector<uint8_t> codes;
  std::vector<float> d;
};

TEST(KMeans, LossNeverGrowsAndTheResultRepeats) {
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  for (const size_t dims : {2, 4}) {
    for (const size_t n : {kCentroids, size_t{1000}, size_t{5000}}) {
      Sample s(n, dims);
      // Skewed, so that clusters empty.
      for (size_t i = 0; i < s.x.size(); ++i) s.x[i] = std::exp(2 * normal(rng));
      std::vector<float> a, b;
      const std::vector<double> losses = s.Run(1, &a);
      ASSERT_EQ(losses.size(), 25u);
      for (size_t i = 1; i < losses.size(); ++i) {
        EXPECT_LE(losses[i], losses[i - 1] * (1 + 1e-6)) << dims << " " << n << " " << i;
      }
      EXPECT_LT(losses.back(), n == kCentroids ? 1e-6 : 0.9 * losses.front());
      s.Run(1, &b);
      EXPECT_EQ(a, b);
    }
  }
}

// As many kinds of points as centroids, most of them in one place: empty clusters find the others.
TEST(KMeans, EmptyClustersSplitTheLargest) {
  Sample s(kCentroids * 20, 2);
  for (size_t i = 0; i < s.n; ++i) {
    const bool apart = i % 40 == 0;
    s.x[i] = apart ? static_cast<float>(i) : 0;
    s.x[s.Stride() + i] = apart ? 1 : 0;
  }
  std::vector<float> centroids;
  const auto losses = s.Run(7, &centroids, 40);
  EXPECT_GT(losses.front(), 0);
  EXPECT_EQ(losses.back(), 0);
}

TEST(KMeans, FewKindsOfPointsAreExact) {
  Sample s(2000, 4);
  for (size_t c = 0; c < 4; ++c) {
    for (size_t i = 0; i < s.n; ++i) s.x[c * s.Stride() + i] = static_cast<float>(i % 3 * (c + 1));
  }
  std::vector<float> centroids;
  EXPECT_EQ(s.Run(3, &centroids).back(), 0);
}

ModelConfig Config() {
  ModelConfig c;
  c.layers = 3;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.rope.dim = 16;
  c.window = {0, 8, 0};
  c.recurrent.assign(3, false);
  return c;
}

class CodebookFiles : public ::testing::Test {
 protected:
  // Writes books of rising numbers.
  std::string Write(const CodebookShape& shape, float first = 0) {
    auto books = Codebooks::Allocate(shape, Owner::kScratch, ledger_);
    EXPECT_TRUE(books.ok());
    for (size_t p = 0; p < shape.pairs(); ++p) {
      for (float* book : {books->keys(p), books->values(p)}) {
        for (size_t i = 0; i < shape.book_floats(); ++i) book[i] = first++;
      }
    }
    EXPECT_TRUE(WriteCodebooks(path_, *books, {"abc", RotarySettings(Config().rope), "t", 9}).ok());
    return path_;
  }
  void Refused(const ModelConfig& model, const std::string& why) {
    const auto file = CodebookFile::Open(path_, model);
    ASSERT_FALSE(file.ok()) << why;
    EXPECT_EQ(file.error().code, Code::kBadFile);
    EXPECT_NE(file.error().message.find(why), std::string::npos) << file.error().message;
  }
  Ledger ledger_{16 * kMiB};
  const std::string path_ = testing::TempDir() + "/books.safetensors";
};

TEST_F(CodebookFiles, ThereAndBack) {
  const ModelConfig c = Config();
  for (const bool global : {false, true}) {
    for (const uint32_t dims : {2u, 4u}) {
      const CodebookShape shape = CodebookShapeOf(c, dims, global);
      EXPECT_EQ(shape.layers, (std::vector<uint32_t>{0, 2}));  // layer 1 has a window
      const auto file = CodebookFile::Open(Write(shape), c);
      ASSERT_TRUE(file.ok()) << file.error().message;
      EXPECT_EQ(file->shape().dims, dims);
      EXPECT_EQ(file->shape().global, global);
      EXPECT_TRUE(file->Check(c, "abc").ok());
      const uint64_t before = ledger_.snapshot().total;
      const auto books = file->Read(ledger_);
      ASSERT_TRUE(books.ok()) << books.error().message;
      EXPECT_EQ(ledger_.snapshot().total - before, file->shape().bytes());
      EXPECT_EQ((*books)->OfLayer(0).keys[5], 5);
      EXPECT_EQ((*books)->OfLayer(0).values[0], 16 * 256);
      EXPECT_EQ((*books)->OfLayer(2).keys[1], global ? 1 : 2 * 16 * 256 + 1);
    }
  }
}

TEST_F(CodebookFiles, OthersAreRefused) {
  const ModelConfig c = Config();
  Write(CodebookShapeOf(c, 2, false));
  const auto file = CodebookFile::Open(path_, c);
  ASSERT_TRUE(file.ok());
  const auto other = file->Check(c, "abd");
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, Code::kBadFile);
  EXPECT_NE(other.error().message.find("the weights abc; these are abd"), std::string::npos);
  EXPECT_NE(other.error().next.find("snug calibrate"), std::string::npos);
  ModelConfig model = c;
  model.rope.base = 5e5f;
  EXPECT_NE(file->Check(model, "abc").error().message.find("rotary settings"), std::string::npos);
  model = c;
  model.window[1] = 0;
  Refused(model, "holds no codebook layers.1.keys");
  model = c;
  model.head_dim = 32;
  Refused(model, "layers.0.keys as F32 of [8, 256, 2]");
  model = c;
  model.window.assign(3, 8);
  Refused(model, "no layer's rows are coded");
  // A ledger without room.
  Ledger small(4096);
  EXPECT_EQ(file->Read(small).error().code, Code::kDoesNotFit);
}

TEST_F(CodebookFiles, WhatIsNoNumberIsRefused) {
  const ModelConfig c = Config();
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const auto file = CodebookFile::Open(Write(CodebookShapeOf(c, 2, true), bad), c);
    ASSERT_TRUE(file.ok());
    const auto books = file->Read(ledger_);
    ASSERT_FALSE(books.ok());
    EXPECT_EQ(books.error().code, Code::kBadFile);
    EXPECT_NE(books.error().message.find("that is no number"), std::string::npos);
  }
}

TEST_F(CodebookFiles, HostileFilesAreRefused) {
  const ModelConfig c = Config();
  Write(CodebookShapeOf(c, 4, true));
  const std::string whole = testing::ReadBytes(path_);
  for (const size_t n : {size_t{0}, size_t{7}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    ASSERT_TRUE(WriteFileAtomically(path_, whole.data(), n).ok());
    const auto file = CodebookFile::Open(path_, c);
    ASSERT_FALSE(file.ok()) << n;
    EXPECT_EQ(file.error().code, Code::kBadFile) << n;
  }
  // Tensors of other shapes, of none of ours, and no metadata.
  const auto write = [&](const std::vector<SafetensorsWriter::Spec>& specs) {
    auto w = SafetensorsWriter::Create(path_, specs);
    ASSERT_TRUE(w.ok());
    for (const auto& s : specs) {
      uint64_t n = 1;
      for (const uint64_t d : s.shape) n *= d;
      const std::vector<float> zeros(n);
      ASSERT_TRUE(w->Append(zeros.data(), n).ok());
    }
    ASSERT_TRUE(w->Finish().ok());
  };
  write({{"keys", {8, 256, 2}}});
  Refused(c, "no codebook values");
  write({{"keys", {8, 256, 2}}, {"values", {4, 256, 4}}});
  Refused(c, "values as F32 of [4, 256, 4]");
  for (const std::vector<uint64_t>& shape : std::vector<std::vector<uint64_t>>{
           {8, 255, 2}, {4096}, {2, 256, 8}, {16, 256, 1}, {8, 256, 2, 1}, {0, 256, 2}}) {
    write({{"keys", shape}, {"values", shape}});
    Refused(c, "which is no codebook of heads of 16");
  }
  write({{"other", {1}}});
  Refused(c, "holds no codebook layers.0.keys");
  write({{"keys", {8, 256, 2}}, {"values", {8, 256, 2}}});
  const auto bare = CodebookFile::Open(path_, c);
  ASSERT_TRUE(bare.ok());
  EXPECT_FALSE(bare->Check(c, "abc").ok());
}

}  // namespace
}  // namespace snug
