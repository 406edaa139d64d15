#include "kv/shared_pairs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernel/kv_layout.h"
#include "kv/tiles.h"

namespace snug {
namespace {

uint64_t WholeLines(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

size_t ElementBytes(KvType type) { return type == KvType::kF32 ? sizeof(float) : sizeof(uint16_t); }

void LoadSide(bool value, KvType type, const uint8_t* tile, size_t dim, size_t slot, float* row) {
  (value ? LoadValue : LoadKey)(type, tile, dim, slot, row);
}

void StoreSide(bool value, KvType type, const float* row, size_t dim, size_t slot, uint8_t* tile) {
  (value ? StoreValue : StoreKey)(type, row, dim, slot, tile);
}

}  // namespace

// Scales [layers, sides, units, stride], then tokens that stay apart [sides, units, most], then
// their rows: of each layer and side [units, most, heads of a unit, head_dim].
struct SharedPairs::Offsets {
  uint64_t stride = 0;  // of scales: whole tiles
  uint64_t most = 0;    // rows of a unit that stay apart
  uint64_t lists = 0;
  std::array<std::array<uint64_t, kSides>, kLayers> own{};
  uint64_t pair_bytes = 0;
};

SharedPairs::Offsets SharedPairs::LayOut(const SharedLayout& l) {
  Offsets o;
  o.stride = uint64_t{Tiles(l.context)} * kTile;
  o.most = l.method->MostApart(l.method->Shared(l.context));
  o.lists = kLayers * kSides * l.units() * o.stride * sizeof(float);
  uint64_t at = o.lists + kSides * l.units() * WholeLines(o.most * sizeof(uint32_t));
  for (auto& layer : o.own) {
    for (size_t side = 0; side < kSides; ++side) {
      layer[side] = at;
      const size_t element = ElementBytes(side == 0 ? l.key_type : l.value_type);
      at += WholeLines(o.most * l.heads * l.head_dim * element);
    }
  }
  o.pair_bytes = at;
  return o;
}

uint64_t SharedLayout::bytes() const {
  if (method == nullptr || pairs == 0) return 0;
  const SharedPairs::Offsets o = SharedPairs::LayOut(*this);
  // Distances and room to choose by them, of keys and of values.
  return uint64_t{sequences} * pairs * o.pair_bytes + 4 * units() * o.stride * sizeof(float);
}

uint64_t SharedLayout::table_bytes() const {
  if (method == nullptr) return 0;
  const uint64_t of_pair = 2 * units() * sizeof(ApartSoFar) + 4 * heads * sizeof(OwnRows);
  return uint64_t{sequences} * pairs * (of_pair + 128);
}

uint64_t SharedLayout::BytesRead(uint32_t tokens) const {
  const uint64_t rows = method->Shared(tokens), apart = method->MostApart(method->Shared(tokens));
  uint64_t bytes = 0;
  for (const KvType type : {key_type, value_type}) {
    bytes += units() * (rows * sizeof(float) + apart * sizeof(uint32_t)) +
             apart * heads * head_dim * ElementBytes(type);
  }
  return bytes;
}

Result<SharedPairs> SharedPairs::Create(const SharedLayout& layout, Ledger& ledger) {
  SharedPairs p;
  p.layout_ = layout;
  if (layout.bytes() == 0) return p;
  SNUG_ASSIGN(p.buffer_, Buffer::Allocate(ledger, Owner::kKv, layout.bytes(), Pages::kNormal,
                                          "scales and own rows of layers that share"));
  p.pairs_.resize(size_t{layout.sequences} * layout.pairs);
  for (Pair& pair : p.pairs_) {
    pair.apart.resize(kSides * layout.units());
    pair.own.resize(kLayers * kSides * layout.heads);
  }
  return p;
}

uint8_t* SharedPairs::Base(uint32_t sequence, uint32_t pair) const {
  const uint64_t index = uint64_t{sequence} * layout_.pairs + pair;
  return const_cast<uint8_t*>(buffer_.data()) + index * LayOut(layout_).pair_bytes;
}

float* SharedPairs::Scales(uint32_t sequence, uint32_t pair, size_t layer, size_t side,
                           size_t unit) const {
  const size_t list = (layer * kSides + side) * layout_.units() + unit;
  return reinterpret_cast<float*>(Base(sequence, pair)) + list * LayOut(layout_).stride;
}

uint32_t* SharedPairs::ApartList(uint32_t sequence, uint32_t pair, size_t side, size_t unit) const {
  const Offsets o = LayOut(layout_);
  return reinterpret_cast<uint32_t*>(Base(sequence, pair) + o.lists +
                                     (side * layout_.units() + unit) *
                                         WholeLines(o.most * sizeof(uint32_t)));
}

uint8_t* SharedPairs::OwnRow(uint32_t sequence, uint32_t pair, size_t layer, size_t side,
                             size_t head, size_t index) const {
  const Offsets o = LayOut(layout_);
  const size_t per = heads_per_unit(), row = head / per * o.most + index;
  return Base(sequence, pair) + o.own[layer][side] +
         (row * per + head % per) * layout_.head_dim * ElementBytes(Type(side));
}

float* SharedPairs::Distances(size_t side, size_t unit) const {
  const uint64_t pairs = uint64_t{layout_.sequences} * layout_.pairs;
  const Offsets o = LayOut(layout_);
  auto* room =
      reinterpret_cast<float*>(const_cast<uint8_t*>(buffer_.data()) + pairs * o.pair_bytes);
  return room + 2 * (side * layout_.units() + unit) * o.stride;
}

size_t SharedPairs::TileAt(size_t side, size_t head) const {
  const size_t key = KvTileBytes(layout_.key_type, layout_.head_dim);
  if (side == 0) return head * key;
  return layout_.heads * key + head * KvTileBytes(layout_.value_type, layout_.head_dim);
}

SharedPairs::Rows SharedPairs::Due(uint32_t sequence, uint32_t pair, uint32_t tokens) const {
  return {At(sequence, pair).rows, layout_.method->Shared(tokens)};
}

void SharedPairs::Measure(const Rows& rows, uint32_t tile, const uint8_t* lower,
                          const uint8_t* upper) {
  const size_t dim = layout_.head_dim, per = heads_per_unit();
  std::array<float, kMaxHeadDim> x, y;
  for (size_t side = 0; side < kSides; ++side) {
    for (size_t unit = 0; unit < layout_.units(); ++unit) {
      float* to = Distances(side, unit) + (size_t{tile} * kTile - rows.from);
      for (size_t slot = 0; slot < kTile; ++slot) {
        RowDots dots;
        for (size_t h = unit * per; h < (unit + 1) * per; ++h) {
          LoadSide(side != 0, Type(side), lower + TileAt(side, h), dim, slot, x.data());
          LoadSide(side != 0, Type(side), upper + TileAt(side, h), dim, slot, y.data());
          for (size_t d = 0; d < dim; ++d) {
            dots.xx += double{x[d]} * x[d];
            dots.yy += double{y[d]} * y[d];
            dots.xy += double{x[d]} * y[d];
          }
        }
        to[slot] = static_cast<float>(layout_.method->Distance(dots));
      }
    }
  }
}

void SharedPairs::Choose(uint32_t sequence, uint32_t pair, const Rows& rows, uint32_t unit) {
  const size_t n = rows.to - rows.from;
  for (size_t side = 0; side < kSides; ++side) {
    ApartSoFar& so_far = At(sequence, pair).apart[side * layout_.units() + unit];
    uint32_t* list = ApartList(sequence, pair, side, unit);
    if (side != 0 && layout_.method->values_follow()) {
      const ApartSoFar& keys = At(sequence, pair).apart[unit];
      std::copy(ApartList(sequence, pair, 0, unit) + so_far.count,
                ApartList(sequence, pair, 0, unit) + keys.count, list + so_far.count);
      so_far.count = keys.count;
      continue;
    }
    float* distances = Distances(side, unit);
    uint32_t* chosen = list + so_far.count;
    const uint32_t count = layout_.method->Choose(
        {distances, n}, rows.to, distances + LayOut(layout_).stride, chosen, &so_far);
    for (uint32_t i = 0; i < count; ++i) chosen[i] += rows.from;
  }
}

void SharedPairs::Merge(uint32_t sequence, uint32_t pair, uint32_t tile, uint8_t* lower,
                        const uint8_t* upper) {
  const size_t dim = layout_.head_dim, per = heads_per_unit();
  std::array<float, kMaxHeadDim> x, y;
  for (size_t side = 0; side < kSides; ++side) {
    const bool value = side != 0;
    const KvType type = Type(side);
    const size_t element = ElementBytes(type);
    for (size_t unit = 0; unit < layout_.units(); ++unit) {
      const size_t begin = unit * per, end = begin + per;
      float* scales[kLayers];
      for (size_t l = 0; l < kLayers; ++l) scales[l] = Scales(sequence, pair, l, side, unit);
      const uint32_t* list = ApartList(sequence, pair, side, unit);
      const uint32_t* list_end =
          list + At(sequence, pair).apart[side * layout_.units() + unit].count;
      const uint32_t* apart = std::lower_bound(list, list_end, tile * kTile);
      for (size_t slot = 0; slot < kTile; ++slot) {
        const size_t row = size_t{tile} * kTile + slot;
        if (apart != list_end && *apart == row) {
          x.fill(0);
          const auto index = static_cast<size_t>(apart - list);
          for (size_t h = begin; h < end; ++h) {
            uint8_t* low = lower + TileAt(side, h);
            for (size_t l = 0; l < kLayers; ++l) {
              const uint8_t* from = l == 0 ? low : upper + TileAt(side, h);
              uint8_t* to = OwnRow(sequence, pair, l, side, h, index);
              for (size_t d = 0; d < dim; ++d) {
                const size_t at = value ? ValueIndex(d, slot) : KeyIndex(d, slot, dim);
                std::memcpy(to + d * element, from + at * element, element);
              }
            }
            StoreSide(value, type, x.data(), dim, slot, low);
          }
          scales[0][row] = scales[1][row] = 0;
          ++apart;
          continue;
        }
        RowDots dots;
        for (size_t h = begin; h < end; ++h) {
          LoadSide(value, type, lower + TileAt(side, h), dim, slot, x.data());
          LoadSide(value, type, upper + TileAt(side, h), dim, slot, y.data());
          for (size_t d = 0; d < dim; ++d) {
            dots.xx += double{x[d]} * x[d];
            dots.yy += double{y[d]} * y[d];
            dots.xy += double{x[d]} * y[d];
          }
        }
        const RowBlend blend = layout_.method->Blend(dots);
        double stored = 0;  // squared length of the shared row as it is rounded
        for (size_t h = begin; h < end; ++h) {
          uint8_t* low = lower + TileAt(side, h);
          LoadSide(value, type, low, dim, slot, x.data());
          LoadSide(value, type, upper + TileAt(side, h), dim, slot, y.data());
          for (size_t d = 0; d < dim; ++d) {
            x[d] = static_cast<float>(blend.of_lower * x[d] + blend.of_upper * y[d]);
          }
          StoreSide(value, type, x.data(), dim, slot, low);
          LoadSide(value, type, low, dim, slot, x.data());
          for (size_t d = 0; d < dim; ++d) stored += double{x[d]} * x[d];
        }
        const double inverse = stored > 0 ? 1 / std::sqrt(stored) : 0;
        scales[0][row] = static_cast<float>(std::sqrt(dots.xx) * inverse);
        scales[1][row] = static_cast<float>(std::sqrt(dots.yy) * inverse);
      }
    }
  }
}

void SharedPairs::Finish(uint32_t sequence, uint32_t pair, const Rows& rows) {
  At(sequence, pair).rows = rows.to;
  Update(sequence, pair);
}

void SharedPairs::Update(uint32_t sequence, uint32_t pair) {
  Pair& p = At(sequence, pair);
  for (size_t layer = 0; layer < kLayers; ++layer) {
    for (size_t side = 0; side < kSides; ++side) {
      for (size_t h = 0; h < layout_.heads; ++h) {
        const size_t unit = h / heads_per_unit();
        p.own[(layer * kSides + side) * layout_.heads + h] = {
            ApartList(sequence, pair, side, unit), p.apart[side * layout_.units() + unit].count,
            OwnRow(sequence, pair, layer, side, h, 0),
            heads_per_unit() * layout_.head_dim * ElementBytes(Type(side))};
      }
    }
  }
}

void SharedPairs::Clear(uint32_t sequence) {
  for (uint32_t i = 0; !pairs_.empty() && i < layout_.pairs; ++i) {
    Pair& p = At(sequence, i);
    p.rows = 0;
    std::fill(p.apart.begin(), p.apart.end(), ApartSoFar());
  }
}

void SharedPairs::Copy(uint32_t from, uint32_t to) {
  for (uint32_t i = 0; !pairs_.empty() && i < layout_.pairs; ++i) {
    const Pair& source = At(from, i);
    if (source.rows == 0) continue;
    std::memcpy(Base(to, i), Base(from, i), LayOut(layout_).pair_bytes);
    At(to, i).rows = source.rows;
    At(to, i).apart = source.apart;
    Update(to, i);
  }
}

SharedRows SharedPairs::rows(uint32_t sequence, uint32_t pair, bool upper) const {
  const Pair& p = At(sequence, pair);
  SharedRows r;
  if (p.rows == 0) return r;
  r.rows = p.rows;
  r.key_scales = Scales(sequence, pair, upper ? 1 : 0, 0, 0);
  r.value_scales = Scales(sequence, pair, upper ? 1 : 0, 1, 0);
  r.scale_stride = layout_.units() == 1 ? 0 : LayOut(layout_).stride;
  r.keys = p.own.data() + (upper ? kSides : 0) * layout_.heads;
  r.values = r.keys + layout_.heads;
  return r;
}

uint64_t SharedPairs::BytesRead(uint32_t sequence, uint32_t pair) const {
  const Pair& p = At(sequence, pair);
  uint64_t bytes = uint64_t{p.rows} * kSides * layout_.units() * sizeof(float);
  for (size_t side = 0; side < kSides; ++side) {
    const uint64_t row = heads_per_unit() * layout_.head_dim * ElementBytes(Type(side));
    for (size_t unit = 0; unit < layout_.units(); ++unit) {
      bytes += p.apart[side * layout_.units() + unit].count * (row + sizeof(uint32_t));
    }
  }
  return bytes;
}

uint64_t SharedPairs::held_bytes() const {
  uint64_t bytes = 0;
  for (uint32_t s = 0; !pairs_.empty() && s < layout_.sequences; ++s) {
    for (uint32_t i = 0; i < layout_.pairs; ++i) {
      uint64_t lists = 0;  // which both layers have in common
      for (const ApartSoFar& a : At(s, i).apart) lists += a.count * sizeof(uint32_t);
      bytes += kLayers * BytesRead(s, i) - lists;
    }
  }
  return bytes;
}

}  // namespace snug
