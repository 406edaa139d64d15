// The claims of MiniCache (Liu et al. 2024): that adjacent layers' keys and values are alike, which
// bytes it saves, and what it costs; over the first tokens of a text.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/file.h"
#include "engine/engine.h"
#include "repro/repro.h"

namespace snug {
namespace {

constexpr uint32_t kPromptTokens = 512, kQuick = 8, kFull = 64;
constexpr uint64_t kMaxText = uint64_t{1} << 30;
// Mean cosines below this are no likeness that a direction of both could rest on.
constexpr double kAlike = 0.5;
// Divergence up to which a cache is called near lossless.
constexpr double kNearLossless = 0.01;

// What a cache gave.
struct Answer {
  std::vector<std::vector<float>> logits;  // after the prompt and each further token
  uint64_t bytes = 0;                      // held after the prompt
};

Result<Answer> Answers(Engine& engine, std::span<const Token> tokens) {
  Answer o;
  const auto take = [&] {
    const auto row = engine.logits(0);
    o.logits.emplace_back(row.begin(), row.end());
  };
  SNUG_TRY(engine.Prefill(0, tokens.first(kPromptTokens), nullptr));
  o.bytes = engine.kv_bytes_held();
  take();
  for (size_t i = kPromptTokens; i < tokens.size(); ++i) {
    const StepItem item{0, tokens.subspan(i, 1), StepItem::Logits::kLast};
    SNUG_TRY(engine.Step({&item, 1}));
    take();
  }
  return o;
}

// Mean divergence of the tokens after the prompt, in nats.
double Divergence(const Answer& dense, const Answer& other) {
  double sum = 0;
  for (size_t i = 1; i < dense.logits.size(); ++i) {
    const auto &p = dense.logits[i], &q = other.logits[i];
    const auto log_sum = [](const std::vector<float>& x) {
      const double max = *std::max_element(x.begin(), x.end());
      double total = 0;
      for (const float v : x) total += std::exp(v - max);
      return max + std::log(total);
    };
    const double of_p = log_sum(p), of_q = log_sum(q);
    for (size_t v = 0; v < p.size(); ++v) {
      sum += std::exp(p[v] - of_p) * ((p[v] - of_p) - (q[v] - of_q));
    }
  }
  return sum / static_cast<double>(dense.logits.size() - 1);
}

// Mean cosines of a layer's keys (values) with the next one's, all heads of a token being one
// vector.
struct Likeness {
  uint32_t lower = 0;
  double keys = 0, values = 0;
};

std::vector<Likeness> Cosines(const Engine& engine) {
  const KvCache& cache = engine.cache();
  const KvLayout& l = cache.layout();
  std::vector<float> x(l.head_dim), y(l.head_dim);
  std::vector<Likeness> all;
  for (uint32_t layer = 0; layer + 1 < l.layers; ++layer) {
    if (!l.Attends(layer) || !l.Attends(layer + 1) || l.window[layer] != l.window[layer + 1])
      continue;
    Likeness like{layer, 0, 0};
    const uint32_t n = cache.rows(0, layer);
    for (uint32_t t = 0; t < n; ++t) {
      std::array<double, 2> cosine{};
      for (const bool value : {false, true}) {
        double xx = 0, yy = 0, xy = 0;
        for (uint32_t h = 0; h < l.kv_heads; ++h) {
          const size_t at = value
                                ? l.kv_heads * cache.key_tile_bytes() + h * cache.value_tile_bytes()
                                : h * cache.key_tile_bytes();
          const auto load = [&](uint32_t from, float* row) {
            const uint8_t* tile = cache.tiles(0, from)[t / kTileTokens] + at;
            value ? LoadValue(l.value_type, tile, l.head_dim, t % kTileTokens, row)
                  : LoadKey(l.key_type, tile, l.head_dim, t % kTileTokens, row);
          };
          load(layer, x.data());
          load(layer + 1, y.data());
          for (uint32_t d = 0; d < l.head_dim; ++d) {
            xx += double{x[d]} * x[d];
            yy += double{y[d]} * y[d];
            xy += double{x[d]} * y[d];
          }
        }
        cosine[value ? 1 : 0] = xx > 0 && yy > 0 ? xy / std::sqrt(xx) / std::sqrt(yy) : 0;
      }
      like.keys += cosine[0] / n;
      like.values += cosine[1] / n;
    }
    all.push_back(like);
  }
  return all;
}

// Bytes of the paper's count, with this program's lengths of four bytes and numbers of tokens
// apart: of the directions of both layers, four lengths a token, and both rows of those apart.
double FormulaBytes(const KvLayout& l, const ShareMethod& method, uint64_t pairs) {
  const double row = 2.0 * l.kv_heads * l.head_dim;  // f16, of keys or of values
  const double apart = method.MostApart(kPromptTokens);
  const double alone = static_cast<double>(l.layers - 2 * pairs) * kPromptTokens * 2 * row;
  return alone + static_cast<double>(pairs) * (kPromptTokens * (2 * row + 4 * sizeof(float)) +
                                               2 * apart * (2 * row + sizeof(uint32_t)));
}

Verdict Judge(bool holds) { return holds ? Verdict::kHolds : Verdict::kDiffers; }

}  // namespace

Result<ReproReport> ReproMiniCache(const ReproOptions& options) {
  const auto step = [&](const std::string& what) {
    if (options.on_step) options.on_step(what);
  };
  if (options.texts.empty()) {
    return MakeError(Code::kUsage, "minicache is measured on a text", "give --text FILE",
                     {{"option", "--text"}});
  }
  SNUG_ASSIGN(const std::string text, ReadWholeFile(options.texts.front(), kMaxText));
  const uint32_t n = options.quick ? kQuick : kFull;
  EngineOptions o;
  o.model_path = options.model_path;
  o.threads = options.threads;
  o.budget = {uint64_t{1} << 46, "unbounded"};
  o.plane_head = false;  // every logit counts
  o.context = kPromptTokens + n;
  step("dense run");
  SNUG_ASSIGN(std::unique_ptr<Engine> engine, Engine::Open(o));
  std::vector<Token> tokens;
  // No token is longer than this on average.
  engine->tokenizer().Encode(text.substr(0, 32 * o.context), {true, false}, &tokens);
  if (tokens.size() < o.context) {
    return MakeError(Code::kBadInput,
                     fmt::format("{}: {} tokens, and {} are measured", options.texts.front(),
                                 tokens.size(), o.context),
                     "give a longer --text");
  }
  tokens.resize(o.context);
  SNUG_ASSIGN(const Answer dense, Answers(*engine, tokens));
  const std::vector<Likeness> likeness = Cosines(*engine);
  const KvLayout layout = engine->cache().layout();
  engine.reset();

  ReproReport report{
      "minicache", "Liu et al. 2024, arXiv 2405.14366", options.model_path, {}, {}, {}, {}};
  double keys = 0, values = 0, upper = 0;
  std::string each;
  for (const Likeness& like : likeness) {
    each += fmt::format("{}{}: {:.2f} / {:.2f}", each.empty() ? "" : ", ", like.lower, like.keys,
                        like.values);
    if (like.lower < layout.layers / 2) continue;
    keys += like.keys;
    values += like.values;
    ++upper;
  }
  const bool alike = upper > 0 && keys / upper >= kAlike && values / upper >= kAlike;
  report.rows.push_back(
      {"adjacent layers are very alike from the middle on",
       fmt::format("mean cosine of a layer's rows with the next one's over {} tokens, keys / "
                   "values, by lower layer",
                   o.context),
       fmt::format("{}; from the middle on {:.2f} / {:.2f}", each, keys / std::max(upper, 1.0),
                   values / std::max(upper, 1.0)),
       alike ? Verdict::kHolds : Verdict::kAbsent});

  struct Setting {
    std::string spec, words;
  };
  const Setting settings[] = {
      {"minicache:start=1", "no pair"},
      {fmt::format("minicache:start={}", std::max(2u, layout.layers - 2)), "the last pair"},
      {"minicache:start=3/4", "the last quarter"},
      {"minicache", "the upper half"},
      {"minicache:unit=head", "the upper half, lengths by head"},
  };
  std::string costs;
  double at_default = 0;
  for (const Setting& s : settings) {
    step(s.spec);
    SNUG_ASSIGN(o.share, ParseShare(s.spec));
    SNUG_ASSIGN(engine, Engine::Open(o));
    SNUG_ASSIGN(const Answer run, Answers(*engine, tokens));
    const uint64_t pairs = engine->cache().layout().pairs.size();
    const bool standard = s.spec == "minicache";
    engine.reset();
    if (pairs == 0 && &s != settings) continue;  // a model of few layers
    if (pairs == 0) {
      const bool same = run.logits == dense.logits;
      report.rows.push_back(
          {"without pairs the cache is the dense one",
           fmt::format("logits of a prompt of {} and {} tokens", kPromptTokens, n),
           same ? "bit-identical" : "not identical", Judge(same)});
      continue;
    }
    const double kl = Divergence(dense, run);
    costs += fmt::format("{}{}: {:.3f}", costs.empty() ? "" : ", ", s.words, kl);
    if (!standard) continue;
    at_default = kl;
    const double formula = FormulaBytes(layout, *o.share, pairs);
    const auto held = static_cast<double>(run.bytes);
    report.rows.push_back(
        {"pairs from the middle on take 1.29 to 1.33 times fewer bytes",
         fmt::format("held after a prompt of {}, against the count of the paper", kPromptTokens),
         fmt::format("{} of {}: {:.2f} times fewer; the formula within {:.2f} %",
                     FormatBytes(run.bytes), FormatBytes(dense.bytes),
                     static_cast<double>(dense.bytes) / held, 100 * std::abs(held / formula - 1)),
         Judge(std::abs(held / formula - 1) <= 0.01)});
  }
  const Verdict lossless = at_default <= kNearLossless ? Verdict::kHolds
                           : alike                     ? Verdict::kDiffers
                                                       : Verdict::kAbsent;
  report.rows.push_back(
      {"merging from the middle on is near lossless",
       fmt::format("divergence from the dense cache over {} tokens after a prompt of {}", n,
                   kPromptTokens),
       costs, lossless});
  report.not_shown = {
      "5.02 times fewer bytes at the same scores on LongBench: models of 7 billion weights and "
      "more",
      "throughput on a GPU: there is none",
  };
  return report;
}

}  // namespace snug
