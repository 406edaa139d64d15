// zipcache in whole models: the rows of more bits are those that probes attend to, and what is
// coded is never touched again.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include "engine_testing.h"
#include "kv/codec/codec.h"
#include "model/observer.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::SomeTokens;
using testing::TinyOptions;

// Queries and keys of all tokens, by layer.
class RotatedRows : public ProductObserver {
 public:
  explicit RotatedRows(const ModelConfig& c) : c_(c), q(c.layers), k(c.layers) {}
  void Enter(const Part&, const uint8_t*, uint32_t) override {}
  PackedMatrix See(const PackedMatrix& w, const Activations&) override { return w; }
  void Embedded(float*, size_t) override {}
  void Rotated(uint32_t layer, const float* queries, const float* keys, const float*, uint32_t rows,
               uint32_t /*first_pos*/) override {
    q[layer].insert(q[layer].end(), queries, queries + size_t{rows} * c_.heads * c_.head_dim);
    k[layer].insert(k[layer].end(), keys, keys + size_t{rows} * c_.kv_heads * c_.head_dim);
  }

 private:
  const ModelConfig& c_;

 public:
  std::vector<std::vector<float>> q, k;
};

EngineOptions ZipOptions(const std::string& arch, const std::string& spec) {
  EngineOptions o = TinyOptions(arch);
  o.logit_rows = 1;
  auto codec = ParseCodec(spec);
  EXPECT_TRUE(codec.ok()) << spec;
  if (codec.ok()) o.codec = *codec;
  return o;
}

// The mean over probes that see a token, and over the query heads of a KV head, of the softmax
// weights that it gets, for tokens [first, end), in double.
std::vector<double> Saliency(const ModelConfig& c, const RotatedRows& rows, uint32_t layer,
                             uint32_t kv, const std::vector<uint32_t>& probes, uint32_t first,
                             uint32_t end) {
  const uint32_t group = c.heads / c.kv_heads, d = c.head_dim;
  std::vector<double> sums(end - first);
  for (const uint32_t query : probes) {
    for (uint32_t g = 0; g < group; ++g) {
      const float* q = rows.q[layer].data() + (size_t{query} * c.heads + kv * group + g) * d;
      std::vector<double> w;
      for (uint32_t t = 0; t <= query; ++t) {
        const float* k = rows.k[layer].data() + (size_t{t} * c.kv_heads + kv) * d;
        double dot = 0;
        for (uint32_t i = 0; i < d; ++i) dot += double{q[i]} * k[i];
        dot *= c.attention_scale;
        const double cap = c.attention_softcap;
        w.push_back(cap > 0 ? cap * std::tanh(dot / cap) : dot);
      }
      const double max = *std::max_element(w.begin(), w.end());
      double sum = 0;
      for (double& x : w) sum += x = std::exp(x - max);
      for (uint32_t t = first; t <= query && t < end; ++t) sums[t - first] += w[t] / sum / group;
    }
  }
  for (uint32_t t = first; t < end; ++t) {
    const auto seen = probes.end() - std::lower_bound(probes.begin(), probes.end(), t);
    sums[t - first] /= static_cast<double>(seen);
  }
  return sums;
}

// The tokens of a segment that have more bits, which here are 16, so that keys say who they are.
std::set<uint32_t> MoreBits(const AttentionArgs& a, const std::vector<float>& keys, uint32_t kv,
                            const CodedSegment& s, uint32_t low) {
  std::set<uint32_t> high;
  std::vector<float> key(a.head_dim);
  for (uint32_t r = s.first + low; r < s.first + s.rows; ++r) {
    a.coded.codec->LoadRow(a, kv, r, false, key.data());
    for (uint32_t t = s.first; t < s.first + s.rows; ++t) {
      const float* k = keys.data() + (size_t{t} * a.kv_heads + kv) * a.head_dim;
      bool same = high.count(t) == 0;
      for (uint32_t i = 0; i < a.head_dim; ++i) {
        same = same && std::abs(k[i] - key[i]) <= 1e-3f * std::abs(k[i]) + 1e-6f;
      }
      if (!same) continue;
      high.insert(t);
      break;
    }
  }
  EXPECT_EQ(high.size(), s.rows - low);
  return high;
}

// Nothing is lost in 16 bits, so that what is observed of every token is the exact attention.
TEST(EngineZipCache, RowsOfMoreBitsAreThoseThatProbesAttendTo) {
  struct Case {
    const char* spec;
    uint32_t gap, tenths;
    bool shared;
  };
  constexpr uint32_t kPrompt = 120, kTokens = 230;
  const Case kCases[] = {
      {"zipcache:hi=16,lo=16,ratio=0.4,gap=50,last=0.1,random=0.2", 50, 4, false},
      {"zipcache:hi=16,lo=16,ratio=0.4,gap=20,segment=60", 20, 4, false},
      {"zipcache:hi=16,lo=16,ratio=0.7,gap=90,selection=shared", 90, 7, true}};
  for (const char* arch : {"llama", "qwen2", "gemma3"}) {
    for (const Case& the : kCases) {
      EngineOptions o = ZipOptions(arch, the.spec);
      SNUG_NEED(o.model_path);
      o.chunk = 48;
      auto engine = OpenOrFail(o);
      const ModelConfig& c = engine->config();
      RotatedRows rows(c);
      engine->Observe(&rows);
      testing::PromptAndTokens(*engine, 0, SomeTokens(kTokens, c.vocab), kPrompt);
      engine->Observe(nullptr);
      std::vector<uint32_t> in_prompt, in_gap;
      ChooseProbes(o.codec->observes().probes, kPrompt, &in_prompt);
      ChooseProbes(o.codec->observes().probes, the.gap, &in_gap);
      for (uint32_t layer = 0; layer < c.layers; ++layer) {
        if (!engine->cache().layout().Codes(layer)) continue;
        AttentionArgs a;
        a.heads = c.heads;
        a.kv_heads = c.kv_heads;
        a.head_dim = c.head_dim;
        a.coded = engine->cache().coded(0, layer);
        ASSERT_EQ(a.coded.keys, kTokens / the.gap * the.gap);
        ASSERT_GE(a.coded.segment_count, 2u);
        for (uint32_t i = 0; i < a.coded.segment_count; ++i) {
          const CodedSegment& s = a.coded.segments[i];
          const uint32_t end = s.first + s.rows;
          std::vector<uint32_t> probes = in_prompt;
          for (uint32_t p = kPrompt; p < end; ++p) {
            if (std::binary_search(in_gap.begin(), in_gap.end(), p % the.gap)) probes.push_back(p);
          }
          std::vector<std::vector<double>> saliency;
          for (uint32_t kv = 0; kv < c.kv_heads; ++kv) {
            saliency.push_back(Saliency(c, rows, layer, kv, probes, s.first, end));
          }
          for (uint32_t kv = 1; the.shared && kv < c.kv_heads; ++kv) {
            for (uint32_t t = 0; t < s.rows; ++t) saliency[0][t] += saliency[kv][t];
          }
          const uint32_t low = s.rows * the.tenths / 10;
          for (uint32_t kv = 0; kv < c.kv_heads; ++kv) {
            const std::vector<double>& mine = saliency[the.shared ? 0 : kv];
            std::vector<double> ranked = mine;
            std::sort(ranked.begin(), ranked.end());
            const auto high = MoreBits(a, rows.k[layer], kv, s, low);
            for (uint32_t t = 0; t < s.rows; ++t) {
              // What is too close to tell in f16 may be in either class.
              if (std::abs(mine[t] - ranked[low]) < 4e-3 * ranked[low]) continue;
              ASSERT_EQ(high.count(s.first + t) == 1, mine[t] > ranked[low])
                  << arch << " " << the.spec << " layer " << layer << " token " << s.first + t;
            }
          }
        }
      }
    }
  }
}

TEST(EngineZipCache, OlderSegmentsAreNeverTouched) {
  const EngineOptions o = ZipOptions("qwen2", "zipcache:gap=30,segment=60");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  const auto tokens = SomeTokens(220, engine->config().vocab);
  std::vector<std::vector<uint8_t>> seen;
  const KvCache& cache = engine->cache();
  testing::PromptAndTokens(*engine, 0, tokens, 100, [&] {
    const CodedRows rows = cache.coded(0, 1);
    for (uint32_t i = 0; i < rows.segment_count; ++i) {
      const CodedSegment& s = rows.segments[i];
      const std::vector<uint8_t> bytes(s.data,
                                       s.data + cache.layout().segments().SegmentBytes(s.rows));
      if (i == seen.size()) seen.push_back(bytes);
      ASSERT_EQ(bytes, seen[i]) << i;
    }
  });
  EXPECT_EQ(seen.size(), 6u);  // 60 and 30 tokens of the prompt, then 30 each
}

// A second prompt's rows and those that were exact before it make one segment.
TEST(EngineZipCache, PromptsAfterPromptsAddSegments) {
  for (const uint32_t chunk : {64u, 5u}) {
    EngineOptions o = ZipOptions("qwen2", "zipcache:gap=30");
    SNUG_NEED(o.model_path);
    o.chunk = chunk;
    auto engine = OpenOrFail(o);
    const auto tokens = SomeTokens(200, engine->config().vocab);
    for (const auto& [first, n] : {std::pair{0u, 100u}, {100u, 15u}, {115u, 3u}, {118u, 82u}}) {
      ASSERT_TRUE(engine->Prefill(0, std::span(tokens).subspan(first, n), nullptr).ok());
    }
    const CodedRows rows = engine->cache().coded(0, 0);
    ASSERT_EQ(rows.segment_count, 2u);
    EXPECT_EQ(rows.segments[0].rows, 90u);
    EXPECT_EQ(rows.segments[1].first, 90u);
    EXPECT_EQ(rows.segments[1].rows, 90u);
  }
}

}  // namespace
}  // namespace snug
