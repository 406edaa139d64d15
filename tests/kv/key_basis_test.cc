// Orders of key channels: the files that hold them, the tables made of them, and the extremes of a
// layer's input.
#include "kv/codec/key_basis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kv/extremes.h"
#include "testing.h"

namespace snug {
namespace {

ModelConfig Config() {
  ModelConfig c;
  c.layers = 3;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.rope.dim = 8;
  c.window = {0, 8, 0};
  c.recurrent.assign(3, false);
  return c;
}

KeyOrder Order() {
  KeyOrder order;
  order.heads = 2;
  order.layers.resize(3);
  for (const uint32_t l : {0u, 2u}) {
    order.layers[l].resize(32);
    std::iota(order.layers[l].begin(), order.layers[l].end(), uint16_t{0});
    std::shuffle(order.layers[l].begin(), order.layers[l].end(), std::mt19937(l));
  }
  order.source = {"abc", RotarySettings(Config().rope), "t", 9};
  return order;
}

class KeyOrders : public ::testing::Test {
 protected:
  void Refused(const std::string& text, const std::string& why) {
    ASSERT_TRUE(WriteFileAtomically(path_, text.data(), text.size()).ok());
    const auto order = ReadKeyOrder(path_, Config());
    ASSERT_FALSE(order.ok()) << why;
    EXPECT_EQ(order.error().code, Code::kBadFile);
    EXPECT_NE(order.error().message.find(why), std::string::npos) << order.error().message;
  }
  const std::string path_ = testing::TempDir() + "/permutation.json";
};

TEST_F(KeyOrders, ThereAndBack) {
  const KeyOrder want = Order();
  ASSERT_TRUE(WriteKeyOrder(path_, want).ok());
  const auto order = ReadKeyOrder(path_, Config());
  ASSERT_TRUE(order.ok()) << order.error().message;
  EXPECT_EQ(order->layers, want.layers);
  EXPECT_EQ(order->heads, 2u);
  EXPECT_TRUE(CheckKeyOrder(path_, *order, Config(), "abc").ok());
  const Status other = CheckKeyOrder(path_, *order, Config(), "abd");
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code, Code::kBadFile);
  EXPECT_NE(other.error().message.find("the weights abc; these are abd"), std::string::npos);
  EXPECT_NE(other.error().next.find("--permutation"), std::string::npos);
  ModelConfig model = Config();
  model.rope.base = 5e5f;
  EXPECT_NE(CheckKeyOrder(path_, *order, model, "abc").error().message.find("rotary settings"),
            std::string::npos);
}

TEST_F(KeyOrders, HostileFilesAreRefused) {
  const std::string head = R"({"snug": {"weights": "a", "rotary": "b"}, "heads": 2, )";
  Refused("", "");
  Refused("[]", "");
  Refused(R"({"heads": 2, "permutation": {}})", "does not say what it was measured on");
  Refused(head + R"("permutation": {}})", "lacks layer 0");
  Refused(head + R"("permutation": {"3": []}})", "is none of 3 layers");
  Refused(head + R"("permutation": {"-1": []}})", "is none of 3 layers");
  Refused(head + R"("permutation": {"99999999999": []}})", "is none of 3 layers");
  Refused(head + R"("permutation": {"0": [1, 2]}})", "2 of 32 channels");
  Refused(head + R"("permutation": {"0": [1, 1]}})", "no permutation of 32 channels");
  Refused(head + R"("permutation": {"0": [32]}})", "no permutation of 32 channels");
  Refused(head + R"("permutation": {"0": [-1]}})", "no permutation of 32 channels");
  Refused(R"({"snug": {}, "heads": 3})", "transforms of 3 heads do not divide 2");
  Refused(R"({"snug": {}, "heads": 0})", "transforms of 0 heads");
  KeyOrder lacking = Order();
  lacking.layers[2].clear();
  ASSERT_TRUE(WriteKeyOrder(path_, lacking).ok());
  EXPECT_NE(ReadKeyOrder(path_, Config()).error().message.find("lacks layer 2"), std::string::npos);
  ASSERT_TRUE(WriteKeyOrder(path_, Order()).ok());
  const std::string whole = testing::ReadBytes(path_);
  for (const size_t n : {size_t{7}, whole.size() / 2, whole.size() - 2}) {
    Refused(whole.substr(0, n), "");
  }
}

TEST_F(KeyOrders, BasesHoldWhatTheyPlan) {
  ModelConfig c = Config();
  c.no_rope = {false, false, true};
  const std::vector<float> frequencies = {1, .5f, .25f, .125f};
  const KeyOrder order = Order();
  Ledger ledger(16 * kMiB);
  const auto basis = KeyBasis::Create(c, frequencies, 200, &order, Owner::kKv, ledger);
  ASSERT_TRUE(basis.ok());
  EXPECT_EQ(ledger.snapshot().total, KeyBasis::Bytes(c, 200));
  const RotatedBasis b = basis->OfLayer(0);
  ASSERT_EQ(b.rotary.pairs, 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(b.rotary.slots[i * 64 + 9], std::cos(9 * frequencies[i]));
    EXPECT_FLOAT_EQ(b.rotary.slots[(4 + i) * 64 + 9], std::sin(9 * frequencies[i]));
    EXPECT_FLOAT_EQ(b.rotary.OfTile(3)[i], std::cos(192 * frequencies[i]));
    EXPECT_FLOAT_EQ(b.rotary.OfTile(3)[4 + i], std::sin(192 * frequencies[i]));
  }
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(b.places[order.layers[0][i]], i);
  EXPECT_EQ(basis->OfLayer(2).rotary.pairs, 0u);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(basis->OfLayer(2).places[order.layers[2][i]], i);
  const auto plain = KeyBasis::Create(c, frequencies, 200, nullptr, Owner::kKv, ledger);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->OfLayer(0).places, nullptr);
  Ledger small(1024);
  EXPECT_EQ(KeyBasis::Create(c, frequencies, 200, nullptr, Owner::kKv, small).error().code,
            Code::kDoesNotFit);
}

TEST(TransformHeads, AreFourOrWhatDivides) {
  for (const auto& [heads, want] : {std::pair{1u, 1u},
                                    {2u, 2u},
                                    {3u, 1u},
                                    {4u, 4u},
                                    {6u, 2u},
                                    {8u, 4u},
                                    {10u, 2u},
                                    {12u, 4u}}) {
    EXPECT_EQ(TransformHeads(heads), want) << heads;
  }
}

TEST(Extremes, AreTheTokensOfTheLargestElements) {
  const std::vector<float> x = {0, 5, 1, -9, 2, 2, 2, 2, 5, 0, 0, 0};  // four tokens of three
  const auto of = [&](uint32_t count) { return TokensOfExtremes(x.data(), 4, 3, count); };
  using Tokens = std::vector<uint32_t>;
  EXPECT_EQ(of(0), Tokens());
  EXPECT_EQ(of(1), (Tokens{1}));
  EXPECT_EQ(of(2), (Tokens{0, 1}));  // the first of two fives
  EXPECT_EQ(of(3), (Tokens{0, 1, 2}));
  EXPECT_EQ(of(100), (Tokens{0, 1, 2, 3}));
  // Against all elements sorted.
  std::mt19937 rng(6);
  std::normal_distribution<float> normal;
  std::vector<float> y(50 * 40);
  for (float& v : y) v = std::round(4 * normal(rng));
  std::vector<size_t> order(y.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return std::abs(y[a]) > std::abs(y[b]); });
  Tokens want;
  for (size_t i = 0; i < 20; ++i) want.push_back(static_cast<uint32_t>(order[i] / 40));
  std::sort(want.begin(), want.end());
  want.erase(std::unique(want.begin(), want.end()), want.end());
  EXPECT_EQ(TokensOfExtremes(y.data(), 50, 40, 20), want);
}

}  // namespace
}  // namespace snug
