// Double Sparsity's labels and the files that rank channels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/file.h"
#include "format/dtype.h"
#include "kernel/read_scores.h"
#include "kernel/targets.h"
#include "kv/read/channels.h"
#include "kv/read/read.h"
#include "testing.h"

namespace snug {
namespace {

ModelConfig Config(uint32_t layers, uint32_t heads, uint32_t kv_heads, uint32_t dim) {
  ModelConfig c;
  c.layers = layers;
  c.heads = heads;
  c.kv_heads = kv_heads;
  c.head_dim = dim;
  c.rope.dim = dim;
  c.window.assign(layers, 0);
  c.recurrent.assign(layers, false);
  return c;
}

std::shared_ptr<const RowMethod> Method(const std::string& spec, std::vector<uint16_t> order) {
  auto method = ParseRead(spec);
  EXPECT_TRUE(method.ok()) << spec;
  const auto dim = static_cast<uint32_t>(order.size());
  auto ranking = std::make_shared<ChannelRanking>(ChannelRanking{1, dim, {std::move(order)}});
  return AsRows((*method)->WithChannels(ranking));
}

// A tile of keys, its labels, and what is guessed of queries.
struct Tile {
  Tile(const RowMethod& m, uint32_t dim) : method(m), head_dim(dim) {
    keys.resize(KvTileBytes(KvType::kF32, dim));
    labels.resize(m.IndexBytes(dim));
  }
  void Store(const std::vector<float>& key, uint32_t row) {
    StoreKey(KvType::kF32, key.data(), head_dim, row, keys.data());
    method.Index({KvType::kF32, head_dim, keys.data()}, 0, 0, row, row + 1, labels.data());
  }
  // Scores [heads, 64].
  std::vector<float> Guess(const std::vector<float>& q) const {
    const auto heads = static_cast<uint32_t>(q.size() / head_dim);
    std::vector<uint8_t> prepared(method.QueryBytes(heads, head_dim));
    method.Prepare({q.data(), heads, head_dim, 0, 0}, prepared.data());
    std::vector<float> scores(heads * 64);
    method.Score(labels.data(), prepared.data(), heads, head_dim, scores.data(), 64);
    return scores;
  }
  const RowMethod& method;
  uint32_t head_dim;
  std::vector<uint8_t> keys, labels;
};

TEST(DoubleSparsity, ByHand) {
  for (const char* bits : {"16", "4"}) {
    const auto m =
        Method(std::string("double-sparsity:channels=2,label-bits=") + bits, {0, 2, 1, 3});
    Tile tile(*m, 4);
    tile.Store({1, 5, 0, 0}, 0);
    tile.Store({0, 0, 2, 0}, 1);
    tile.Store({-1, 0, -4, 1}, 2);
    const auto scores = tile.Guess({3, .1f, -2, .2f});
    EXPECT_NEAR(scores[0], 3, 0.05);
    EXPECT_NEAR(scores[1], -4, 0.05);
    EXPECT_NEAR(scores[2], 5, 0.05);
    uint32_t chosen = 9;
    float room[3];
    ChooseLargest({scores.data(), 3}, 1, room, &chosen);
    EXPECT_EQ(chosen, 2u);
  }
}

// With all channels in f16 the guess is q.k itself, whatever their order.
TEST(DoubleSparsity, AllChannelsGiveTheTrueScores) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (const uint32_t dim : {10u, 64u}) {
    std::vector<uint16_t> order(dim);
    std::iota(order.begin(), order.end(), uint16_t{0});
    std::shuffle(order.begin(), order.end(), rng);
    const auto m = Method("double-sparsity:channels=1,label-bits=16", order);
    Tile tile(*m, dim);
    std::vector<float> q(2 * dim);
    for (float& x : q) x = normal(rng);
    std::vector<std::vector<float>> keys(64, std::vector<float>(dim));
    for (uint32_t r = 0; r < 64; ++r) {
      for (float& x : keys[r]) x = HalfToFloat(FloatToHalf(normal(rng)));
      tile.Store(keys[r], r);
    }
    const auto scores = tile.Guess(q);
    for (uint32_t h = 0; h < 2; ++h) {
      for (uint32_t r = 0; r < 64; ++r) {
        double dot = 0;
        for (uint32_t d = 0; d < dim; ++d) dot += double{q[h * dim + d]} * keys[r][d];
        EXPECT_NEAR(scores[h * 64 + r], dot, 1e-4);
      }
    }
  }
}

// A code is off by half a step at most, a step and the least value by f16's rounding, the query by
// half of its own step.
TEST(DoubleSparsity, CodesAreWithinTheirSteps) {
  std::mt19937 rng(6);
  std::normal_distribution<float> normal;
  for (const int64_t target : RunnableTargets()) {
    UseTarget(target);
    for (const size_t n : {1u, 2u, 8u, 13u, 32u, 64u}) {
      for (const size_t heads : {1u, 2u, 3u, 7u}) {
        std::vector<std::vector<float>> values(64, std::vector<float>(n));
        std::vector<uint8_t> labels(NibbleLabelBytes(n)), queries(heads * NibbleQueryBytes(n));
        for (size_t r = 0; r < 64; ++r) {
          for (float& v : values[r]) v = 3 * normal(rng) + (r == 5 ? 100 : 0);
          if (r == 7) std::fill(values[r].begin(), values[r].end(), 0.5f);
          StoreNibbleLabel(values[r].data(), n, r, labels.data());
        }
        std::vector<float> q(heads * n), scores(heads * 64);
        for (float& x : q) x = normal(rng);
        for (size_t h = 0; h < heads; ++h) {
          PrepareNibbleQuery(&q[h * n], n, &queries[h * NibbleQueryBytes(n)]);
        }
        ScoreNibbles(labels.data(), n, queries.data(), heads, scores.data(), 64);
        for (size_t h = 0; h < heads; ++h) {
          float most = 0, sum = 0;
          for (size_t c = 0; c < n; ++c) {
            most = std::max(most, std::abs(q[h * n + c]));
            sum += std::abs(q[h * n + c]);
          }
          for (size_t r = 0; r < 64; ++r) {
            const auto [low, high] = std::minmax_element(values[r].begin(), values[r].end());
            const double step = (*high - *low) / 15,
                         large = std::max(std::abs(*low), std::abs(*high));
            double dot = 0, codes = 0;
            for (size_t c = 0; c < n; ++c) {
              dot += double{q[h * n + c]} * values[r][c];
              codes += (values[r][c] - *low) / step + 0.5;
            }
            if (step == 0) codes = 0;
            const double bound = sum * step * 0.5 + codes * step * most / 254 + sum * large * 2e-3;
            EXPECT_NEAR(scores[h * 64 + r], dot, bound + 1e-5) << n << " " << r;
          }
        }
      }
    }
  }
  UseTarget(0);
}

TEST(DoubleSparsity, WrongSpecsAreRefused) {
  for (const char* spec :
       {"double-sparsity:label-bits=5", "double-sparsity:channels=0", "double-sparsity:tokens=0"}) {
    const auto m = ParseRead(spec);
    ASSERT_FALSE(m.ok()) << spec;
    EXPECT_EQ(m.error().code, Code::kUsage);
  }
  const auto m = ParseRead("double-sparsity:channels=65");
  ASSERT_TRUE(m.ok());
  EXPECT_FALSE((*m)->Check(64).ok());
  EXPECT_TRUE((*m)->Check(65).ok());
  EXPECT_TRUE((*ParseRead("double-sparsity:channels=1"))->Check(32).ok());
}

class Channels : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path = dir_ + "/channels.json";
    EXPECT_TRUE(WriteFileAtomically(path, text.data(), text.size()).ok());
    return path;
  }
  const std::string dir_ = testing::TempDir();
};

TEST_F(Channels, ThereAndBack) {
  ModelConfig c = Config(3, 4, 2, 4);
  c.window[1] = 8;
  ChannelRanking r{2, 4, {{0, 1, 2, 3, 3, 2, 1, 0}, {}, {2, 0, 3, 1, 1, 3, 0, 2}}};
  const std::string path = Write("");
  ASSERT_TRUE(WriteChannels(path, r, {"abc", RotarySettings(c.rope), "a text", 7}).ok());
  const auto back = ReadChannels(path, c, "abc", 0);
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->layers, r.layers);
  const auto refused = [&](const ModelConfig& model, const std::string& weights,
                           const std::string& why) {
    const auto got = ReadChannels(path, model, weights, 0);
    ASSERT_FALSE(got.ok()) << why;
    EXPECT_EQ(got.error().code, Code::kBadFile);
    EXPECT_NE(got.error().message.find(why), std::string::npos) << got.error().message;
  };
  refused(c, "abd", "weights abc");
  ModelConfig other = c;
  other.rope.base = 5e5f;
  refused(other, "abc", "rotary settings");
  other = c;
  other.window[1] = 0;
  refused(other, "abc", "lacks layer 1");
  refused(Config(3, 4, 1, 4), "abc", "2 heads");
  refused(Config(3, 4, 2, 8), "abc", "4 of 8");
}

// As the official code writes them: a list for each query head, rotary pairs in halves.
TEST_F(Channels, ListsOfQueryHeadsJoin) {
  ModelConfig c = Config(1, 4, 2, 4);
  const std::string path =
      Write(R"({"model.layers.0.self_attn.qk_proj": [[0,1,2,3],[1,0,2,3],[3,2,1,0],[3,1,2,0]]})");
  auto r = ReadChannels(path, c, "any", 0);
  ASSERT_TRUE(r.ok()) << r.error().message;
  EXPECT_EQ(r->layers[0], (std::vector<uint16_t>{0, 1, 2, 3, 3, 1, 2, 0}));
  c.rope.interleaved = true;
  r = ReadChannels(path, c, "any", 0);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->layers[0], (std::vector<uint16_t>{0, 2, 1, 3, 3, 2, 1, 0}));
}

TEST_F(Channels, HostileFilesAreRefused) {
  const ModelConfig c = Config(2, 4, 2, 4);
  const std::string good = R"("model.layers.1.self_attn.qk_proj": [[0,1,2,3],[3,2,1,0]])";
  const auto reads = [&](const std::string& text) { return ReadChannels(Write(text), c, "w", 1); };
  ASSERT_TRUE(reads("{" + good + "}").ok());
  for (const std::string& text : std::vector<std::string>{
           "",
           "[]",
           "{}",
           "{" + good,
           "{" + good + "} x",
           "{" + good + "," + good + "}",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3],[0,1,2,3],[0,1,2,3]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[],[],[],[],[],[]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3],[3,2,1,1]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3],[3,2,1]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3],[3,2,1,0,0]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3],[3,2,1,4]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3],[3,2,1,-1]]})",
           R"({"model.layers.1.self_attn.qk_proj": [[0,1,2,3],[3,2,1,1e300]]})",
           R"({"model.layers.1.self_attn.qk_proj": {"0": 1}})",
           R"({"model.layers.0.self_attn.qk_proj": [[0,1,2,3],[3,2,1,0]]})",
           R"({"model.layers.99999999999.self_attn.qk_proj": [[0,1,2,3],[3,2,1,0]]})",
           R"({"snug": {"weights": "other"}, )" + good + "}",
           R"({"snug": {}, )" + good + "}",
           R"({"snug": {"weights": "w"}, "snug": {}, )" + good + "}",
           std::string(100, '['),
       }) {
    const auto r = reads(text);
    ASSERT_FALSE(r.ok()) << text;
    EXPECT_EQ(r.error().code, Code::kBadFile) << text;
  }
  const std::string whole = "{" + good + "}";
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(reads(whole.substr(0, n)).ok()) << n;
}

}  // namespace
}  // namespace snug
