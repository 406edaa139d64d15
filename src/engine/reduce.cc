// Prompts of which not all tokens are read: the pass over the model's first layers that says which.
// It runs layer by layer, as prompts do whose rows are dropped, over a cache of one layer's rows.
#include "engine/reduce.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <numeric>

#include "engine/engine.h"

namespace snug {
namespace {

// Notes the last token's queries, then their products with the keys of all tokens.
class QueryKeys final : public ProductObserver {
 public:
  QueryKeys(const ModelConfig& config, float* dots, size_t stride)
      : config_(config), dots_(dots), stride_(stride), query_(size_t{config.heads} * dim()) {}

  void AwaitQuery() { awaits_query_ = true; }
  uint32_t keys() const { return keys_; }

  void Enter(const Part&, const uint8_t*, uint32_t) override {}
  PackedMatrix See(const PackedMatrix& w, const Activations&) override { return w; }
  void Embedded(float*, size_t) override {}
  void Rotated(uint32_t /*layer*/, const float* q, const float* k, const float* /*v*/,
               uint32_t rows, uint32_t /*first_pos*/) override {
    if (awaits_query_) {
      assert(rows == 1);
      std::copy_n(q, query_.size(), query_.begin());
      awaits_query_ = false;
      keys_ = 0;
      return;
    }
    const size_t group = config_.heads / config_.kv_heads;
    for (uint32_t r = 0; r < rows; ++r, ++keys_, k += config_.kv_heads * dim()) {
      for (size_t h = 0; h < config_.heads; ++h) {
        const float* query = query_.data() + h * dim();
        const float* key = k + h / group * dim();
        double dot = 0;
        for (size_t i = 0; i < dim(); ++i) dot += double{query[i]} * key[i];
        dots_[h * stride_ + keys_] = static_cast<float>(dot);
      }
    }
  }

 private:
  size_t dim() const { return config_.head_dim; }
  const ModelConfig& config_;
  float* const dots_;  // [heads, stride]
  const size_t stride_;
  std::vector<float> query_;  // [heads, head_dim]
  bool awaits_query_ = false;
  uint32_t keys_ = 0;
};

// While it lives, blocks store and read rows in the cache of a scan.
class ScanCache {
 public:
  ScanCache(KvCache& cache, KvCache& scan) : cache_(cache), scan_(scan) {
    std::swap(cache_, scan_);
  }
  ~ScanCache() {
    cache_.Clear(0);
    std::swap(cache_, scan_);
  }
  ScanCache(const ScanCache&) = delete;
  ScanCache& operator=(const ScanCache&) = delete;

 private:
  KvCache &cache_, &scan_;
};

}  // namespace

Status CheckReduce(const ModelConfig& c, const EngineOptions& o) {
  if (o.reduce == nullptr) return {};
  const auto refuse = [&](Code code, const std::string& why, const std::string& next) {
    return MakeError(code, fmt::format("--reduce {}: {}", o.reduce->spec(), why), next,
                     {{"option", "--reduce"}, {"value", o.reduce->spec()}});
  };
  if (c.encoder) {
    return refuse(Code::kUsage,
                  fmt::format("{} is an encoder: every token of a text counts", c.name), {});
  }
  if (c.recurrent_layers() > 0) {
    return refuse(Code::kUsage,
                  fmt::format("{} of {}'s layers keep a state and have no keys to choose tokens by",
                              c.recurrent_layers(), c.name),
                  "leave it out");
  }
  const uint32_t layer = o.reduce->Layer(c);
  if (layer >= c.layers) {
    return refuse(
        Code::kUsage,
        fmt::format("there is no layer {}: those of {} are 0 .. {}", layer, c.name, c.layers - 1),
        "layer=auto");
  }
  if (c.window[layer] != 0) {
    return refuse(Code::kUsage,
                  fmt::format("layer {} of {} has a window of {} tokens, beyond which its last "
                              "query sees nothing",
                              layer, c.name, c.window[layer]),
                  "layer=auto, which takes a layer without, where there is one");
  }
  if (o.prompt < 1 || o.prompt > c.trained_context) {
    return refuse(Code::kDoesNotFit,
                  fmt::format("prompts of {} tokens, and {} was trained for {}", o.prompt, c.name,
                              c.trained_context),
                  fmt::format("give --prompt-size of 1 .. {}", c.trained_context));
  }
  if (o.Read(o.prompt) >= o.context) {
    return refuse(Code::kDoesNotFit,
                  fmt::format("{} tokens of a prompt of {} leave a context of {} no room for the "
                              "answer",
                              o.Read(o.prompt), o.prompt, o.context),
                  "give a larger --ctx-size, or have fewer tokens read");
  }
  // LongRoPE: positions of a run share one of two lists of divisors.
  const bool two_lists = c.rope.scaling == RopeScaling::kNone && c.rope.original_context > 0;
  const auto beyond = [&](uint32_t n) { return static_cast<float>(n) > c.rope.original_context; };
  if (two_lists && beyond(o.prompt) != beyond(o.context)) {
    return refuse(Code::kUsage,
                  fmt::format("{} rotates up to {} tokens in one way and more in another, and a "
                              "prompt of {} and a context of {} are to be rotated alike",
                              c.name, c.rope.original_context, o.prompt, o.context),
                  fmt::format("give --prompt-size {:.0f}", c.rope.original_context));
  }
  return {};
}

std::span<float> Engine::scan_room() {
  const size_t scores = size_t{config().heads} * options_.prompt;
  return {scan_room_.as<float>() + scores, 2 * size_t{options_.prompt}};
}

Status Engine::ScanPrompt(std::span<const Token> tokens, uint32_t first, uint32_t last,
                          const PromptProgress& progress, const LayerScored& scored) {
  assert(scan_cache_ != nullptr && observer_ == nullptr && first <= last && last < layers_);
  assert(place_->resident() || last >= plan_.reduce_layer);
  if (tokens.empty() || tokens.size() > options_.prompt) {
    return MakeError(Code::kDoesNotFit,
                     fmt::format("a prompt of {} tokens, and at most {} are taken", tokens.size(),
                                 options_.prompt),
                     "give a larger --prompt-size",
                     {{"prompt_tokens", std::to_string(tokens.size())},
                      {"prompt_size", std::to_string(options_.prompt)}});
  }
  SNUG_TRY(CheckVocabulary(tokens));
  const auto total = static_cast<uint32_t>(tokens.size());
  const ModelConfig& c = config();
  QueryKeys dots(c, scan_room_.as<float>(), total);
  const ScanCache scan(*cache_, *scan_cache_);
  const uint64_t kv_before = blocks_->kv_bytes_read(), experts = blocks_->expert_bytes_used();
  const size_t parts = 2 + size_t{last};
  size_t next_part = 1;
  place_->BeginPass(parts, NextParts(true));

  const auto last_query = [&](uint32_t layer, const LayerWeights& weights) {
    const RowSpan span{0, 0, 1, total - 1};
    blocks_->Begin({&span, 1});
    cache_->ExtendLayer(0, layer, 1);
    std::memcpy(blocks_->x(0), hidden_.as<float>() + (total - 1) * size_t{c.dim},
                c.dim * sizeof(float));
    dots.AwaitQuery();
    model_->Keys(*blocks_, layer, weights);
    cache_->Clear(0);
  };
  const auto run_layer = [&](uint32_t layer) -> Status {
    SNUG_ASSIGN(const uint8_t* base, place_->Acquire(1 + layer));
    const LayerWeights weights = ViewPart(layout_.parts[1 + layer], base);
    blocks_->set_observer(layer < first ? nullptr : &dots);
    if (layer >= first) last_query(layer, weights);
    Status status =
        RunChunks(0, layer, total, weights, layer == last ? Extent::kKeys : Extent::kLayer,
                  ShareOfPrompt(progress, total, layer, last + 1));
    place_->Release(1 + layer);
    cache_->Clear(0);
    if (!status.ok() || layer < first) return status;
    assert(dots.keys() == total);
    return scored(layer, {total, c.heads, scan_room_.as<float>(), total, c.attention_scale,
                          c.attention_softcap});
  };
  Status status = EmbedPrompt(0, tokens);
  for (uint32_t l = 0; l <= last && status.ok(); ++l) {
    next_part = 2 + l;
    status = run_layer(l);
  }
  if (!status.ok()) AbandonPass(next_part, parts);
  blocks_->set_observer(nullptr);
  traffic_.weight_bytes += blocks_->expert_bytes_used() - experts;
  traffic_.kv_bytes += blocks_->kv_bytes_read() - kv_before;
  return status;
}

Result<std::vector<uint32_t>> Engine::Reduce(std::span<const Token> tokens,
                                             const PromptProgress& progress) {
  const auto total = static_cast<uint32_t>(tokens.size());
  std::vector<uint32_t> chosen(options_.Read(total));
  if (chosen.size() == total) {
    std::iota(chosen.begin(), chosen.end(), 0u);
    return chosen;
  }
  const auto choose = [&](uint32_t, const PromptScores& scores) {
    return options_.reduce->Choose(scores, scan_room(), chosen);
  };
  SNUG_TRY(ScanPrompt(tokens, plan_.reduce_layer, plan_.reduce_layer, progress, choose));
  return chosen;
}

}  // namespace snug
