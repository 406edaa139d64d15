#include "kv/codec/key_basis.h"

#include <fmt/format.h>

#include <cmath>

#include "base/json.h"
#include "base/json_reader.h"
#include "kv/tiles.h"

namespace snug {
namespace {

constexpr size_t kMaxKey = 256;
constexpr uint64_t kMaxBytes = 64 << 20;
constexpr const char* kAgain =
    "measure this model: snug calibrate MODEL --text TEXT --permutation -o FILE";

uint32_t Width(const ModelConfig& m) { return m.kv_heads * m.head_dim; }

class Reader {
 public:
  Reader(const File& file, const ModelConfig& model) : json_(file), model_(model) {
    order_.layers.resize(model.layers);
  }

  Result<KeyOrder> Read(const std::string& path) {
    bool named = false;
    const bool ok = json_.Object(kMaxKey, [&](std::string_view key) {
      if (key == "snug") {
        named = true;
        return ReadMeasuredOn(json_, &order_.source);
      }
      if (key == "heads") return Heads();
      if (key == "permutation") return Lists();
      return json_.Skip();
    });
    if (!ok || !json_.AtEnd()) return json_.TakeError();
    const auto bad = [&](const std::string& what) {
      return MakeError(Code::kBadFile, fmt::format("{} {}", path, what), kAgain, {{"file", path}});
    };
    if (!named) return bad("does not say what it was measured on");
    for (uint32_t l = 0; l < model_.layers; ++l) {
      if (model_.window[l] == 0 && !model_.recurrent[l] && order_.layers[l].empty()) {
        return bad(fmt::format("lacks layer {}", l));
      }
    }
    return std::move(order_);
  }

 private:
  bool Heads() {
    const auto n = json_.Integer();
    if (!n) return false;
    if (*n < 1 || *n > model_.kv_heads || model_.kv_heads % *n != 0) {
      return json_.Fail(
          fmt::format("transforms of {} heads do not divide {}", *n, model_.kv_heads));
    }
    order_.heads = static_cast<uint32_t>(*n);
    return true;
  }

  bool Lists() {
    return json_.Object(kMaxKey, [&](std::string_view key) {
      uint32_t layer = 0;
      bool number = !key.empty() && key.size() < 6;
      for (const char c : key) {
        number = number && c >= '0' && c <= '9';
        layer = layer * 10 + static_cast<uint32_t>(c - '0');
      }
      if (!number || layer >= model_.layers) {
        return json_.Fail(fmt::format("\"{}\" is none of {} layers", key, model_.layers));
      }
      return List(layer);
    });
  }

  bool List(uint32_t layer) {
    std::vector<uint16_t>& list = order_.layers[layer];
    if (!list.empty()) return json_.Fail(fmt::format("layer {} comes twice", layer));
    const uint32_t width = Width(model_);
    std::vector<bool> seen(width);
    const bool ok = json_.Array([&] {
      const auto c = json_.Integer();
      if (!c) return false;
      if (*c < 0 || *c >= width || seen[static_cast<size_t>(*c)]) {
        return json_.Fail(fmt::format("layer {}: no permutation of {} channels", layer, width));
      }
      seen[static_cast<size_t>(*c)] = true;
      list.push_back(static_cast<uint16_t>(*c));
      return true;
    });
    if (!ok) return false;
    if (list.size() == width) return true;
    return json_.Fail(fmt::format("layer {}: {} of {} channels", layer, list.size(), width));
  }

  JsonReader json_;
  const ModelConfig& model_;
  KeyOrder order_;
};

size_t SlotFloats(const ModelConfig& m) { return m.rope.dim / 2 * 2 * kTileTokens; }
size_t TileFloats(const ModelConfig& m, uint32_t tiles) { return m.rope.dim / 2 * 2 * tiles; }

}  // namespace

uint32_t TransformHeads(uint32_t kv_heads) {
  return kv_heads % 4 == 0 ? 4 : kv_heads % 2 == 0 ? 2 : 1;
}

Result<KeyOrder> ReadKeyOrder(const std::string& path, const ModelConfig& model) {
  SNUG_ASSIGN(const File file, File::Open(path));
  if (file.size() > kMaxBytes) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{} has {} bytes, too many for orders of channels", path, file.size()), {},
        {{"file", path}});
  }
  return Reader(file, model).Read(path);
}

Status CheckKeyOrder(const std::string& path, const KeyOrder& order, const ModelConfig& model,
                     const std::string& weights) {
  return CheckMeasuredOn(path, order.source, weights, model.rope, kAgain);
}

Status WriteKeyOrder(const std::string& path, const KeyOrder& order) {
  Json lists = Json::object();
  for (size_t l = 0; l < order.layers.size(); ++l) {
    if (!order.layers[l].empty()) lists[std::to_string(l)] = order.layers[l];
  }
  const Json json = {{"snug", MeasuredOnJson(order.source)},
                     {"heads", order.heads},
                     {"permutation", std::move(lists)}};
  const std::string text = DumpJson(json) + "\n";
  return WriteFileAtomically(path, text.data(), text.size());
}

uint64_t KeyBasis::Bytes(const ModelConfig& m, uint32_t context) {
  return Buffer::Reserved((SlotFloats(m) + TileFloats(m, Tiles(context))) * sizeof(float) +
                              uint64_t{m.layers} * Width(m) * sizeof(uint16_t),
                          Pages::kNormal);
}

Result<KeyBasis> KeyBasis::Create(const ModelConfig& m, const std::vector<float>& frequencies,
                                  uint32_t context, const KeyOrder* order, Owner owner,
                                  Ledger& ledger) {
  KeyBasis b;
  b.model_ = &m;
  b.tiles_ = Tiles(context);
  b.ordered_ = order != nullptr;
  SNUG_ASSIGN(b.buffer_, Buffer::Allocate(ledger, owner, Bytes(m, context), Pages::kNormal,
                                          "rotations and orders of keys"));
  const size_t pairs = frequencies.size();
  auto* slots = b.buffer_.as<float>();
  float* tiles = slots + SlotFloats(m);
  for (size_t i = 0; i < pairs; ++i) {
    const auto angle = [&](size_t position) {
      return static_cast<double>(position) * frequencies[i];
    };
    for (size_t s = 0; s < kTile; ++s) {
      slots[i * kTile + s] = static_cast<float>(std::cos(angle(s)));
      slots[(pairs + i) * kTile + s] = static_cast<float>(std::sin(angle(s)));
    }
    for (size_t t = 0; t < b.tiles_; ++t) {
      tiles[2 * t * pairs + i] = static_cast<float>(std::cos(angle(t * kTile)));
      tiles[(2 * t + 1) * pairs + i] = static_cast<float>(std::sin(angle(t * kTile)));
    }
  }
  if (order == nullptr) return b;
  auto* places = reinterpret_cast<uint16_t*>(tiles + TileFloats(m, b.tiles_));
  for (uint32_t l = 0; l < m.layers; ++l, places += Width(m)) {
    const std::vector<uint16_t>& list = order->layers[l];
    for (size_t i = 0; i < list.size(); ++i) places[list[i]] = static_cast<uint16_t>(i);
  }
  return b;
}

RotatedBasis KeyBasis::OfLayer(uint32_t layer) const {
  const ModelConfig& m = *model_;
  const auto* slots = const_cast<Buffer&>(buffer_).as<float>();
  const float* tiles = slots + SlotFloats(m);
  const bool rotated = m.no_rope.empty() || !m.no_rope[layer];
  const auto* places = reinterpret_cast<const uint16_t*>(tiles + TileFloats(m, tiles_));
  return {{rotated ? m.rope.dim / 2 : 0, m.rope.interleaved, slots, tiles},
          ordered_ ? places + size_t{layer} * Width(m) : nullptr};
}

}  // namespace snug
