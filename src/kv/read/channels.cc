#include "kv/read/channels.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/json.h"
#include "base/json_reader.h"

namespace snug {
namespace {

constexpr size_t kMaxKey = 256;
constexpr uint64_t kMaxBytes = 64 << 20;
constexpr std::string_view kPrefix = "model.layers.";
constexpr std::string_view kSuffixes[] = {".self_attn.qk_proj", ".self_attn.q_proj",
                                          ".self_attn.k_proj"};

// The layer that a key names.
std::optional<uint32_t> LayerOf(std::string_view key, uint32_t layers) {
  if (key.rfind(kPrefix, 0) != 0) return {};
  key.remove_prefix(kPrefix.size());
  for (const std::string_view suffix : kSuffixes) {
    if (key.size() <= suffix.size() || key.substr(key.size() - suffix.size()) != suffix) continue;
    key.remove_suffix(suffix.size());
    uint32_t layer = 0;
    for (const char c : key) {
      if (c < '0' || c > '9' || layer >= layers) return {};
      layer = layer * 10 + static_cast<uint32_t>(c - '0');
    }
    if (layer < layers) return layer;
    return {};
  }
  return {};
}

class Reader {
 public:
  Reader(const File& file, const ModelConfig& model) : json_(file), model_(model) {
    ranking_.kv_heads = model.kv_heads;
    ranking_.head_dim = model.head_dim;
    ranking_.layers.resize(model.layers);
  }

  Result<ChannelRanking> Read(const std::string& path, const std::string& weights,
                              uint32_t first_layer) {
    const bool ok = json_.Object(kMaxKey, [&](std::string_view key) {
      if (key == "snug") return Source();
      const auto layer = LayerOf(key, model_.layers);
      return layer ? Layer(*layer) : json_.Skip();
    });
    if (!ok || !json_.AtEnd()) return json_.TakeError();
    static constexpr const char* kAgain =
        "measure this model: snug calibrate MODEL --text TEXT --channels -o FILE";
    if (ours_) SNUG_TRY(CheckMeasuredOn(path, source_, weights, model_.rope, kAgain));
    for (uint32_t l = first_layer; l < model_.layers; ++l) {
      const bool reads = model_.window[l] == 0 && !model_.recurrent[l];
      if (reads && ranking_.layers[l].empty()) {
        return MakeError(Code::kBadFile, fmt::format("{} lacks layer {}", path, l), kAgain,
                         {{"file", path}});
      }
    }
    if (!ours_ && model_.rope.interleaved) Interleave();
    return std::move(ranking_);
  }

 private:
  bool Source() {
    if (ours_) return json_.Fail("\"snug\" comes twice");
    ours_ = true;
    return ReadMeasuredOn(json_, &source_);
  }

  bool Layer(uint32_t layer) {
    if (!ranking_.layers[layer].empty()) {
      return json_.Fail(fmt::format("layer {} comes twice", layer));
    }
    const uint32_t dim = model_.head_dim;
    std::vector<uint16_t> lists;
    uint32_t heads = 0;
    std::vector<bool> seen(dim);
    const bool ok = json_.Array([&] {
      if (++heads > model_.heads) return json_.Fail(fmt::format("layer {}: too many heads", layer));
      seen.assign(dim, false);
      uint32_t n = 0;
      return json_.Array([&] {
        const auto c = json_.Integer();
        if (!c) return false;
        if (*c < 0 || *c >= dim || seen[static_cast<size_t>(*c)] || n == dim) {
          return json_.Fail(fmt::format("layer {} head {}: no permutation of {} channels", layer,
                                        heads - 1, dim));
        }
        seen[static_cast<size_t>(*c)] = true;
        lists.push_back(static_cast<uint16_t>(*c));
        ++n;
        return true;
      }) && (n == dim || json_.Fail(fmt::format("layer {} head {}: {} of {} channels", layer,
                                                heads - 1, n, dim)));
    });
    if (!ok) return false;
    if (heads != model_.kv_heads && heads != model_.heads) {
      return json_.Fail(
          fmt::format("layer {} has {} heads, the model {} for queries and {} for keys", layer,
                      heads, model_.heads, model_.kv_heads));
    }
    ranking_.layers[layer] = heads == model_.kv_heads ? std::move(lists) : Joined(lists);
    return true;
  }

  // One list for each KV head: channels by the sum of their ranks.
  std::vector<uint16_t> Joined(const std::vector<uint16_t>& lists) const {
    const uint32_t dim = model_.head_dim, group = model_.heads / model_.kv_heads;
    std::vector<uint16_t> joined;
    for (uint32_t kv = 0; kv < model_.kv_heads; ++kv) {
      std::vector<uint32_t> rank(dim);
      for (uint32_t h = kv * group; h < (kv + 1) * group; ++h) {
        for (uint32_t i = 0; i < dim; ++i) rank[lists[size_t{h} * dim + i]] += i;
      }
      std::vector<uint16_t> order(dim);
      std::iota(order.begin(), order.end(), uint16_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](uint16_t a, uint16_t b) { return rank[a] < rank[b]; });
      joined.insert(joined.end(), order.begin(), order.end());
    }
    return joined;
  }

  // Channels c and c + dim / 2 of a pair lie beside each other.
  void Interleave() {
    const uint32_t dim = model_.rope.dim, half = dim / 2;
    for (auto& layer : ranking_.layers) {
      for (uint16_t& c : layer) {
        if (c < dim) c = static_cast<uint16_t>(c < half ? 2 * c : 2 * (c - half) + 1);
      }
    }
  }

  JsonReader json_;
  const ModelConfig& model_;
  ChannelRanking ranking_;
  bool ours_ = false;
  MeasuredOn source_;
};

}  // namespace

Result<ChannelRanking> ReadChannels(const std::string& path, const ModelConfig& model,
                                    const std::string& weights, uint32_t first_layer) {
  SNUG_ASSIGN(const File file, File::Open(path));
  if (file.size() > kMaxBytes) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{} has {} bytes, too many for a ranking of channels", path, file.size()), {},
        {{"file", path}});
  }
  return Reader(file, model).Read(path, weights, first_layer);
}

Status WriteChannels(const std::string& path, const ChannelRanking& ranking,
                     const MeasuredOn& source) {
  Json json = {{"snug", MeasuredOnJson(source)}};
  for (size_t l = 0; l < ranking.layers.size(); ++l) {
    if (ranking.layers[l].empty()) continue;
    Json heads = Json::array();
    for (uint32_t h = 0; h < ranking.kv_heads; ++h) {
      const uint16_t* list = ranking.Head(static_cast<uint32_t>(l), h);
      heads.push_back(std::vector<uint16_t>(list, list + ranking.head_dim));
    }
    json[fmt::format("{}{}{}", kPrefix, l, kSuffixes[0])] = std::move(heads);
  }
  const std::string text = DumpJson(json) + "\n";
  return WriteFileAtomically(path, text.data(), text.size());
}

}  // namespace snug
