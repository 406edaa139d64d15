#include "engine/cache_rules.h"

#include <fmt/format.h>

#include <algorithm>

namespace snug {
namespace {

Status CheckTypes(const ModelConfig& c, const EngineOptions& o) {
  if (o.exact || c.encoder) return {};
  // Measured on Qwen 2.5 Coder 1.5B, values in f16: KL divergence 3.4. Biases of the keys leave
  // four bits no room for the rest.
  if (c.arch == "qwen2" && o.key_type == KvType::kQ4_0 && !o.any_types) {
    return MakeError(
        Code::kUsage,
        fmt::format("keys in q4_0 ruin {} (on 512 tokens of a book perplexity rose from 37 to 823)",
                    c.name),
        "--kv k=q8_0,v=q4_0, or --force to have it so",
        {{"option", "--kv"}, {"value", "q4_0"}, {"architecture", c.arch}});
  }
  for (KvType t : {o.key_type, o.value_type}) {
    if (!KvTypeSupports(t, c.head_dim)) {
      return MakeError(
          Code::kUsage,
          fmt::format("cache type {} needs a head size that is a multiple of 32; {} has {}",
                      KvTypeName(t), c.name, c.head_dim),
          "use --kv f16 or bf16");
    }
  }
  return {};
}

// Refuses what cannot be where positions are places in the cache.
Status CheckPositions(const ModelConfig& c, const EngineOptions& o) {
  if (!o.rolling) return {};
  const auto refuse = [&](const std::string& why, const std::string& next) {
    return MakeError(Code::kUsage, fmt::format("--kv-positions rolling: {}", why), next,
                     {{"option", "--kv-positions"}, {"value", "rolling"}});
  };
  if (c.encoder) return refuse(fmt::format("{} is an encoder and keeps nothing", c.name), {});
  if (o.codec != nullptr) {
    const char* how = o.codec->needs_basis() ? "rotates keys, as it reads them,"
                                             : "codes keys as they were rotated";
    return refuse(fmt::format("--kv {} {} for their positions in the text", o.codec->spec(), how),
                  "--kv f16, bf16, q8_0 or q4_0, and a --kv-keep");
  }
  if (o.share != nullptr) {
    return refuse(fmt::format("--kv-share {} merges keys as they were rotated for their positions "
                              "in the text",
                              o.share->spec()),
                  "--kv-keep sink-window in its place");
  }
  if (o.keep == nullptr) {
    return refuse("no row is dropped, so that its place in the cache is its position",
                  "--kv-keep sink-window, or another method that drops rows");
  }
  if (o.keep->merging() != nullptr) {
    return refuse(fmt::format("--kv-keep {} merges keys that were rotated for different positions",
                              o.keep->spec()),
                  "a --kv-keep that drops rows, as sink-window");
  }
  const auto layers = static_cast<uint32_t>(std::count(c.window.begin(), c.window.end(), 0u));
  uint32_t most = 0;
  for (uint32_t l = 0; l < layers; ++l) {
    most = std::max(most, o.keep->RowsAtMost(o.context, {l, layers}));
  }
  if (most >= o.context) {
    return refuse(fmt::format("--kv-keep {} keeps up to {} rows, and a context of {} has no room "
                              "for one more",
                              o.keep->spec(), most, o.context),
                  "give a smaller budget= or a larger --ctx-size");
  }
  return {};
}

// Refuses what cannot be with a method that drops rows, or with a codec.
Status CheckByLayer(const ModelConfig& c, const EngineOptions& o) {
  if (o.keep == nullptr && o.codec == nullptr) return {};
  const bool keeps = o.keep != nullptr;
  const std::string option = keeps ? "--kv-keep" : "--kv";
  const std::string& spec = keeps ? o.keep->spec() : o.codec->spec();
  const auto refuse = [&](const std::string& why, const std::string& next) {
    return MakeError(Code::kUsage, fmt::format("{} {}: {}", option, spec, why), next,
                     {{"option", option}, {"value", spec}});
  };
  if (c.encoder) return refuse(fmt::format("{} is an encoder and keeps nothing", c.name), {});
  if (c.recurrent_layers() > 0) {
    return refuse(
        fmt::format("{} of {}'s layers keep a state instead of rows", c.recurrent_layers(), c.name),
        "leave it out: states are of one size as they are");
  }
  if (std::count(c.window.begin(), c.window.end(), 0u) == 0) {
    return refuse(fmt::format("all layers of {} have a sliding window, which bounds them", c.name),
                  "leave it out");
  }
  if (o.lookup) {
    return refuse(keeps ? "a draft that fails is rolled back, and dropped or merged rows cannot be"
                        : "a draft's tokens would see exact what token by token is coded, and one "
                          "that fails is rolled back, which coded rows cannot be",
                  "--speculate off");
  }
  bool spans = false;  // whether a row of the codec is of several heads
  if (o.codec != nullptr) {
    const auto tiles = o.codec->Tiles(c.kv_heads, c.head_dim, 0);
    if (!tiles.ok()) return tiles.error();
    spans = *tiles != nullptr && (*tiles)->key_heads() > 1;
  }
  if (keeps && spans) {
    return refuse(fmt::format("rows go head by head, and those of --kv {} span all {} KV heads",
                              o.codec->spec(), c.kv_heads),
                  "--kv f16, q8_0 or q4_0, which encode each head by itself, or no --kv-keep");
  }
  if (keeps && o.codec != nullptr) {
    return refuse(fmt::format("rows that go one by one leave holes in the groups of --kv {}",
                              o.codec->spec()),
                  "--kv f16, q8_0 or q4_0, which encode each row by itself, or no --kv-keep");
  }
  if (o.codec != nullptr) {
    SNUG_TRY(o.codec->Segments(c.head_dim));
    if (o.codec->needs_codebooks() && o.codebooks.empty()) {
      return refuse("it needs codebooks of the model",
                    "learn them once: snug calibrate MODEL --text TEXT --codebooks -o FILE; then "
                    "give --kv-codebooks FILE");
    }
    if (o.codec->needs_order() && o.permutation.empty()) {
      return refuse("it needs a permutation of the model's key channels",
                    "measure it once: snug calibrate MODEL --text TEXT --permutation -o FILE; then "
                    "give --kv-permutation FILE (or sort=off)");
    }
  }
  if (keeps) {
    const auto full = std::count(c.window.begin(), c.window.end(), 0u);
    SNUG_TRY(o.keep->Check(static_cast<uint32_t>(full)));
  }
  return {};
}

// Refuses what cannot be with a method that chooses what is read.
Status CheckRead(const ModelConfig& c, const EngineOptions& o) {
  if (o.read == nullptr) return {};
  const auto refuse = [&](const std::string& why, const std::string& next) {
    return MakeError(Code::kUsage, fmt::format("--kv-read {}: {}", o.read->spec(), why), next,
                     {{"option", "--kv-read"}, {"value", o.read->spec()}});
  };
  if (c.encoder) return refuse(fmt::format("{} is an encoder and keeps nothing", c.name), {});
  if (c.recurrent_layers() > 0) {
    return refuse(
        fmt::format("{} of {}'s layers keep a state; going back to it reads tokens again, "
                    "which then see all rows",
                    c.recurrent_layers(), c.name),
        "leave it out");
  }
  if (std::count(c.window.begin(), c.window.end(), 0u) == 0) {
    return refuse(fmt::format("all layers of {} have a sliding window, which bounds them", c.name),
                  "leave it out");
  }
  SNUG_TRY(o.read->Check(c.head_dim));
  if (o.read->needs_channels() && o.channels.empty()) {
    return refuse("it needs a ranking of the keys' channels",
                  "measure it once: snug calibrate MODEL --text TEXT --channels -o FILE; then give "
                  "--kv-channels FILE");
  }
  if (o.codec != nullptr && o.codec->observes().any()) {
    return refuse(
        fmt::format("--kv {} observes the attention that rows get, and rows that are not read are "
                    "not observed",
                    o.codec->spec()),
        "one of the two");
  }
  if (o.read->blocks() != nullptr) {
    if (o.keep == nullptr || !o.keep->observes().any()) return {};
    return refuse(
        fmt::format(
            "--kv-keep {} observes the attention that rows get, and what a prompt's queries "
            "do not read is not observed",
            o.keep->spec()),
        "one of the two, or a --kv-keep that observes nothing");
  }
  if (o.codec != nullptr) {
    SNUG_ASSIGN(const auto tiles, o.codec->Tiles(c.kv_heads, c.head_dim, 0));
    if (tiles != nullptr && tiles->key_heads() > 1) {
      return refuse(fmt::format("each KV head reads rows of its own, and those of --kv {} span all "
                                "{} KV heads",
                                o.codec->spec(), c.kv_heads),
                    "--kv f16, bf16, q8_0 or q4_0, or no --kv-read");
    }
    return refuse(fmt::format("rows that --kv {} has taken over cannot be gathered one by one",
                              o.codec->spec()),
                  "--kv f16, bf16, q8_0 or q4_0, or no --kv-read");
  }
  if (o.keep == nullptr) return {};
  if (o.keep->observes().decode) {
    return refuse(
        fmt::format("--kv-keep {} observes the attention that rows get, and rows that are "
                    "not read are not observed",
                    o.keep->spec()),
        "one of the two");
  }
  if (o.keep->merging() != nullptr) {
    return refuse(
        fmt::format("--kv-keep {} merges rows, and how many tokens a row stands for joins "
                    "its score, of which the index knows nothing",
                    o.keep->spec()),
        "one of the two");
  }
  return refuse(fmt::format("--kv-keep {} moves rows into the places of dropped ones, where the "
                            "index of what to read does not follow",
                            o.keep->spec()),
                "one of the two");
}

// How a layer sees and places tokens, in words.
std::string LayerWords(const ModelConfig& c, uint32_t l) {
  std::string words =
      c.window[l] == 0 ? "sees all tokens" : fmt::format("sees the last {}", c.window[l]);
  if (!c.no_rope.empty() && c.no_rope[l]) words += " and rotates none";
  return words;
}

// Refuses what cannot be with layers that hold rows together.
Status CheckShare(const ModelConfig& c, const EngineOptions& o) {
  if (o.share == nullptr) return {};
  const auto refuse = [&](const std::string& why, const std::string& next) {
    return MakeError(Code::kUsage, fmt::format("--kv-share {}: {}", o.share->spec(), why), next,
                     {{"option", "--kv-share"}, {"value", o.share->spec()}});
  };
  if (c.encoder) return refuse(fmt::format("{} is an encoder and keeps nothing", c.name), {});
  if (c.recurrent_layers() > 0) {
    return refuse(
        fmt::format("{} of {}'s layers keep a state instead of rows", c.recurrent_layers(), c.name),
        "leave it out");
  }
  if (std::count(c.window.begin(), c.window.end(), 0u) == 0) {
    return refuse(fmt::format("all layers of {} have a sliding window, which bounds them", c.name),
                  "leave it out");
  }
  if (o.lookup) {
    return refuse("a draft that fails is rolled back, and merged rows cannot be",
                  "--speculate off");
  }
  if (o.keep != nullptr && o.keep->merging() != nullptr) {
    return refuse(fmt::format("--kv-keep {} merges the tokens of each layer and head in its own "
                              "way, so that the rows of two layers are no longer the same tokens",
                              o.keep->spec()),
                  "one of the two");
  }
  if (o.keep != nullptr) {
    return refuse(fmt::format("--kv-keep {} keeps rows by layer and head, and a pair needs the "
                              "same tokens in both layers",
                              o.keep->spec()),
                  "one of the two");
  }
  if (o.read != nullptr) {
    return refuse(fmt::format("--kv-read {} keeps an index of each layer's own keys, which are "
                              "merged here",
                              o.read->spec()),
                  "one of the two");
  }
  if (o.codec != nullptr) {
    return refuse(fmt::format("--kv {} takes rows over that are shared here", o.codec->spec()),
                  "--kv f16 or bf16");
  }
  for (const KvType t : {o.key_type, o.value_type}) {
    if (o.exact || t == KvType::kF16 || t == KvType::kBF16) continue;
    return refuse(fmt::format("rows in {} are rounded, those kept apart bit by bit", KvTypeName(t)),
                  "--kv f16 or bf16");
  }
  SNUG_ASSIGN(const std::vector<uint32_t> pairs, o.share->Pairs(c.layers));
  for (const uint32_t l : pairs) {
    const std::string lower = LayerWords(c, l), upper = LayerWords(c, l + 1);
    if (lower == upper) continue;
    return refuse(fmt::format("layers {} and {} of {} are unlike, as one {} and the other {}", l,
                              l + 1, c.name, lower, upper),
                  "start= a layer from which on all are alike, or leave it out");
  }
  return {};
}

// Refuses what cannot be with rows that live elsewhere.
Status CheckPlace(const EngineOptions& o) {
  if (o.kv_place == nullptr) return {};
  const std::string& spec = o.kv_place->spec();
  const auto refuse = [&](const std::string& why, const std::string& next) {
    return MakeError(Code::kUsage, fmt::format("--kv-place {}: {}", spec, why), next,
                     {{"option", "--kv-place"}, {"value", spec}});
  };
  if (o.keep != nullptr) {
    return refuse(
        fmt::format("--kv-keep {} drops rows wherever they lie, and those that were moved "
                    "lie there in order",
                    o.keep->spec()),
        "one of the two");
  }
  if (o.codec != nullptr) {
    return refuse(fmt::format("--kv {} takes over rows that are moved here", o.codec->spec()),
                  "--kv f16, bf16, q8_0 or q4_0, or no --kv-place");
  }
  if (o.share != nullptr) {
    return refuse(fmt::format("--kv-share {} merges rows that are moved here", o.share->spec()),
                  "one of the two");
  }
  if (o.read == nullptr || o.read->rows() == nullptr) {
    const std::string who =
        o.read == nullptr ? "" : fmt::format(" (--kv-read {} chooses in prompts)", o.read->spec());
    return refuse("every token would read all rows again, as nothing chooses among them" + who,
                  "--kv-read double-sparsity or quest");
  }
  if (o.lookup) {
    return refuse("a draft that fails is rolled back, and rows that were moved are not",
                  "--speculate off");
  }
  return {};
}

}  // namespace

bool CanRoll(const ModelConfig& c) {
  return !c.encoder && c.recurrent_layers() == 0 &&
         std::count(c.window.begin(), c.window.end(), 0u) > 0;
}

Status CheckCache(const ModelConfig& config, const EngineOptions& options) {
  SNUG_TRY(CheckTypes(config, options));
  SNUG_TRY(CheckPositions(config, options));
  SNUG_TRY(CheckShare(config, options));
  SNUG_TRY(CheckPlace(options));
  SNUG_TRY(CheckByLayer(config, options));
  return CheckRead(config, options);
}

}  // namespace snug
