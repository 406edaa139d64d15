// codec: how rows that have grown old are coded. A codec is a file beside this one and a line of
// its registry (codec.cc); the cache, the attention kernel and the engine know none by name. New
// rows are stored as the cache types say; a codec takes them over in groups, the oldest first, and
// leaves the newest exact. (Types that encode each row by itself, q8_0 and the like, are KvType's.)
//
// A prompt is read exactly, layer by layer: a layer's attention sees all of its rows as they were
// stored, then the codec takes over and their pages go back to the pool. From then on every step
// adds one token, which takes part exact.
//
// Layers with a sliding window stay outside: their size is bounded as it is.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/spec.h"
#include "base/status.h"
#include "kernel/tile_codec.h"
#include "kv/method.h"
#include "kv/observations.h"

namespace snug {

class Codebooks;
class KeyBasis;
struct CodebookShape;
struct KeyOrder;

// What is known of the rows of a segment that is about to be coded.
struct SegmentScores {
  uint32_t heads = 0, rows = 0;
  // [heads, stride] the attention that probes gave to each row, and [rows] how many saw it.
  const float* sums = nullptr;
  size_t stride = 0;
  const uint32_t* probes = nullptr;
};

class KvCodec : public KvMethod {
 public:
  // Of a sequence of `tokens` tokens the first so many have coded keys (values); at most `tokens`,
  // and never less for more tokens. Multiples of the groups of its tiles.
  virtual uint32_t CodedKeys(uint32_t tokens) const = 0;
  virtual uint32_t CodedValues(uint32_t tokens) const = 0;
  // Tokens at most that are not coded, keys and values, the one that a step adds included.
  virtual uint32_t MostExact() const = 0;
  // Tokens that pass while rows are coded beside the steps (encoder.h): what CodedKeys says of
  // `tokens` + lag() tokens, at most `tokens`, is begun after `tokens`, and read coded lag() later,
  // whenever it was done. 0: rows are coded between steps, and read coded at once. Of codecs of
  // tiles alone whose groups are whole tiles, keys and values of the same tokens, no Extremes().
  virtual uint32_t lag() const { return 0; }
  // Its tiles of a layer, for KV heads of a size; they live no longer than the codec. kUsage where
  // it has none; null where it codes segments.
  virtual Result<std::shared_ptr<const TileCodec>> Tiles(uint32_t /*kv_heads*/,
                                                         uint32_t /*head_dim*/,
                                                         uint32_t /*layer*/) const {
    return std::shared_ptr<const TileCodec>();
  }
  // An observation that it asks for: so many elements of a layer's input, the residual stream of a
  // sequence's first prompt, that are the largest by magnitude. The rows of their tokens stay exact
  // in that layer.
  virtual uint32_t Extremes() const { return 0; }

  // --- codecs of segments: what is taken over at once, keys and values of the same tokens, is
  // coded together, in an order that depends on what was observed of it. Tokens of the smallest
  // segment, of which every other one is a multiple; 0: tiles are coded.
  virtual uint32_t segment_unit() const { return 0; }
  virtual uint32_t segment_most() const { return UINT32_MAX; }
  // As Tiles.
  virtual Result<std::shared_ptr<const SegmentCodec>> Segments(uint32_t /*head_dim*/) const {
    return std::shared_ptr<const SegmentCodec>();
  }
  // Probes alone.
  virtual Observations observes() const { return {}; }
  // The order in which rows of one head are coded, numbers within the segment; `room` has as many
  // floats. A function of its arguments alone; heads are asked in parallel.
  virtual void Order(const SegmentScores& /*scores*/, uint32_t /*head*/, std::span<float> /*room*/,
                     std::span<uint32_t> /*order*/) const {}

  // Whether it goes by codebooks (codebooks.h); before it has them its tiles have sizes only.
  virtual bool needs_codebooks() const { return false; }
  // kUsage where books of that shape do not fit its parameters.
  virtual Status CheckCodebooks(const CodebookShape& /*shape*/) const { return {}; }
  virtual std::shared_ptr<const KvCodec> WithCodebooks(
      std::shared_ptr<const Codebooks> /*books*/) const {
    return nullptr;
  }

  // Whether it codes keys as they were before rotary embedding: it needs to know how they were
  // rotated (key_basis.h), and has tiles with sizes only before that; whether it goes by an order
  // of the keys' channels, too.
  virtual bool needs_basis() const { return false; }
  virtual bool needs_order() const { return false; }
  // kUsage where an order does not fit its parameters.
  virtual Status CheckOrder(const KeyOrder& /*order*/, uint32_t /*kv_heads*/) const { return {}; }
  virtual std::shared_ptr<const KvCodec> WithBasis(
      std::shared_ptr<const KeyBasis> /*basis*/) const {
    return nullptr;
  }
};

// A codec as the registry holds it.
struct CodecEntry {
  std::string_view name, source;  // source: the paper
  std::string_view summary;
  std::string_view needs;  // what it must be given beside its parameters, in words
  std::span<const SpecParameter> parameters;
  Result<std::shared_ptr<KvCodec>> (*make)(std::span<const double> values);
  // Parameters that take it from its finest to its coarsest, for caches with a budget of bytes.
  std::span<const std::string_view> steps = {};
};
std::span<const CodecEntry* const> Codecs();

// Whether a spec string names a codec, whatever its parameters.
bool NamesCodec(std::string_view spec);
// The codec that a spec string (base/spec.h) names. Errors: ParseSpec's, and kUsage for parameters
// that do not go together.
Result<std::shared_ptr<const KvCodec>> ParseCodec(std::string_view spec);

}  // namespace snug
