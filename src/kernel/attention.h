// Fused attention over the encoded cache. Keys and values live in tiles of 64 tokens per KV head;
// the kernel reads each tile once for all query heads of its group, in prefill and in decode alike.
//
// Determinism: the output for one query is a function of the query, the encoded tiles at or before
// its position and the window alone. Positions are absolute: tile j covers tokens [64 j, 64 j +
// 64), splits are kSplitTiles tiles, partial results combine in split order. Prefill and decode run
// the same inner kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace snug {

// kF32 is for --exact; kF8E4M3: OCP 8-bit floating point, sign, 4 bits of exponent, 3 of mantissa,
// without infinities (OFP8, 2023).
enum class KvType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kF8E4M3 };
std::string_view KvTypeName(KvType type);
std::optional<KvType> ParseKvType(std::string_view name);

inline constexpr size_t kTileTokens = 64;
inline constexpr uint32_t kMaxHeadDim = 1024;  // of all attention kernels
inline constexpr size_t kSplitTiles =
    4;  // 256 tokens: two per window of 512, so two threads share it
inline constexpr size_t kSplitTokens = kTileTokens * kSplitTiles;

// Bytes of one tile of keys (or of values) of one KV head, a multiple of 64. The layouts of keys
// and values differ and are the kernel's own; each byte count is head_dim x 64 values plus block
// scales.
size_t KvTileBytes(KvType type, size_t head_dim);

// Quantized types hold blocks of 32 along the head; the others take any even head_dim.
bool KvTypeSupports(KvType type, size_t head_dim);

// Encodes one token's key (value) of one head into slot 0..63 of a tile. What is stored is finite
// whatever comes (values saturate, NaN becomes 0), and pages start zeroed, so that masked slots can
// never leak into a result.
void StoreKey(KvType type, const float* k, size_t head_dim, size_t slot, uint8_t* tile);
void StoreValue(KvType type, const float* v, size_t head_dim, size_t slot, uint8_t* tile);
// The slow references' view: decodes a slot to float32 [head_dim].
void LoadKey(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, float* k);
void LoadValue(KvType type, const uint8_t* tile, size_t head_dim, size_t slot, float* v);
// Moves an encoded token from one slot to another, bit by bit.
void CopyKey(KvType type, const uint8_t* from, size_t from_slot, size_t head_dim, uint8_t* to,
             size_t to_slot);
void CopyValue(KvType type, const uint8_t* from, size_t from_slot, size_t head_dim, uint8_t* to,
               size_t to_slot);

// Keys of 16 tokens lie together, so that reading one touches the lines of all. Where single ones
// are read they may lie as values do: StoreValue, LoadValue and CopyValue are then what stores,
// loads and copies them. Copies a token of such a tile to a tile of keys.
void CopyRowAsKey(KvType type, const uint8_t* from, size_t from_slot, size_t head_dim, uint8_t* to,
                  size_t to_slot);

class RowCodec;  // tile_codec.h

// Rows that were coded together, those of tokens [first, first + rows), in an order of the codec's
// own for each head.
struct CodedSegment {
  uint32_t first = 0, rows = 0;
  const uint8_t* data = nullptr;
};

// Coded rows that are also kept as they were stored, and are read so.
struct ExactRows {
  uint32_t count = 0;
  const uint32_t* tokens = nullptr;  // [count] ascending
  // [count, kv_heads, head_dim] of the cache's types: f16, bf16 or f32.
  const uint8_t *keys = nullptr, *values = nullptr;
};

// Rows of one sequence in one layer that a codec holds: those of tokens [0, keys) have coded keys,
// those of tokens [0, values) coded values.
struct CodedRows {
  const RowCodec* codec = nullptr;  // null: none are coded
  uint32_t keys = 0, values = 0;
  // Of codecs of tiles, page bases by tile: the coded keys of all KV heads, then their coded
  // values.
  const uint8_t* const* tiles = nullptr;
  ExactRows exact;
  // Of codecs of segments, which hold keys as values, in the order of their tokens.
  const CodedSegment* segments = nullptr;
  uint32_t segment_count = 0;
  // Tiles that are the codec's to walk, having a coded row.
  uint32_t end() const {
    return static_cast<uint32_t>(((keys > values ? keys : values) + kTileTokens - 1) / kTileTokens);
  }
};

// Rows of one KV head that are its layer's own where others are shared, ascending.
struct OwnRows {
  const uint32_t* rows = nullptr;  // [count]
  uint32_t count = 0;
  const uint8_t* data = nullptr;  // a row's elements as they were stored: f16, bf16 or f32
  size_t stride = 0;              // bytes from row to row
};

// Rows of one sequence that several layers share, as one of them sees them: a key is a shared row
// times a scale of its logits, a value one times a scale of its own.
struct SharedRows {
  uint32_t rows = 0;  // the first so many, whole tiles; 0: none
  // Page bases by tile: the shared keys of all KV heads, then their shared values, in the tiles of
  // AttentionArgs' types (f16, bf16 or f32).
  const uint8_t* const* tiles = nullptr;
  // By row, those of a KV head `scale_stride` after those of the one before.
  const float *key_scales = nullptr, *value_scales = nullptr;
  size_t scale_stride = 0;
  const OwnRows *keys = nullptr, *values = nullptr;  // [kv_heads]; their scales are 0
};

// One sequence's rows in one layer.
struct AttentionArgs {
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  uint32_t heads = 0, kv_heads = 0, head_dim = 0;
  uint32_t window = 0;  // 0: full; else query p sees keys in (p - window, p]
  bool causal = true;   // else every query sees all keys, as in encoders; needs window = 0
  float scale = 1;      // multiplies q.k
  float softcap = 0;    // 0: none; else scores become softcap * tanh(score / softcap)
  bool exact = false;   // float32 products throughout
  // [heads] a score that joins each query's softmax and carries no value (gpt-oss), or null.
  const float* sinks = nullptr;
  // [kv_heads, bias_stride] by token, in units of log 2: joins its score, after the cap, for all
  // query heads of the KV head. Whole tiles; null: none. Not observed, nor with a codec.
  const float* bias = nullptr;
  size_t bias_stride = 0;
  // q [tokens, heads * head_dim] with row stride q_stride, rows at positions first_pos, first_pos +
  // 1, ...
  const float* q = nullptr;
  size_t q_stride = 0;
  uint32_t tokens = 0;
  uint32_t first_pos = 0;
  // Page bases. A page holds tokens [64 j, 64 j + 64) of `page_heads` KV heads (0: of all): their
  // keys, then their values. Each such group of heads has a table of its own, `table_stride`
  // entries after the one before, indexed by absolute j; entries before the window are not read.
  // Where rows have been dropped, a token's place in the tables is what counts as its position:
  // queries see what lies before them, in whatever order.
  const uint8_t* const* tiles = nullptr;
  uint32_t page_heads = 0;
  size_t table_stride = 0;
  // Keys lie as values do (CopyRowAsKey). With a codec they do not.
  bool key_rows = false;
  const uint8_t* ordered_keys = nullptr;  // of the kernel: the keys of the tile that it walks
  // What a codec has in the place of pages: of tokens that all queries see. Pages all of whose rows
  // are coded are not read.
  CodedRows coded;
  // What other layers have a part in, in the place of pages: of tokens that all queries see. Not
  // observed, nor with a codec.
  SharedRows shared;
  float* out = nullptr;  // [tokens, heads * head_dim], row stride out_stride
  size_t out_stride = 0;
  // [tokens, heads] where each softmax leaves its logarithm of the sum of weights, in units of
  // log 2, for Observe; or null.
  float* log_sums = nullptr;
};

// Work is cut into independent tasks for the caller's threads. Prefill (many tokens) and encoders:
// a task is a block of queries of one KV head over all its splits. Decode (few tokens): a task is
// one split of one KV head for all rows, its partials go to `partial`, and Combine finishes a (row,
// head) in split order.
struct AttentionPlan {
  bool split = false;  // partials and Combine needed
  uint32_t tasks = 0;
  uint32_t first_split = 0, splits = 0;
  uint32_t query_block = 0;
};
AttentionPlan PlanAttention(const AttentionArgs& args, int threads);
// Floats of `partial` that a split call of `tokens` rows ending at `context` tokens needs; linear
// in tokens.
size_t PartialFloats(size_t tokens, size_t heads, size_t head_dim, size_t context);
// Rows above which PlanAttention never chooses the split form.
inline constexpr uint32_t kMaxSplitRows = 16;
// Bytes of per-thread scratch for AttendTask (a decoded tile of keys and values, scores, sums).
size_t AttentionScratchBytes(size_t head_dim, size_t heads_per_kv);
void AttendTask(const AttentionArgs& args, const AttentionPlan& plan, uint32_t task,
                uint8_t* scratch, float* partial);
void CombinePartials(const AttentionArgs& args, const AttentionPlan& plan, const float* partial,
                     uint32_t row, uint32_t head);

// Slow, obvious reference in double over decoded tiles.
void AttentionReference(const AttentionArgs& args);

// Weights of a flattened softmax with noise, in the place of attention's own: those of the softmax
// of (score + z) / temperature, z drawn from the standard Gumbel distribution by seed, head and the
// tokens of query and key (Adnan et al. 2024, Keyformer).
struct ScoreNoise {
  float temperature = 0;  // 0: attention's own weights
  bool gumbel = false;    // else z = 0
  uint64_t seed = 0;
  const uint32_t* positions = nullptr;  // [kv_heads, stride of the sums] each row's token
  uint32_t first_position = 0;          // the token of the call's first query
  float* log_sums = nullptr;            // [tokens, heads] room for the softmax's own sums
};

// How much attention each held token gets: sums over query rows of their weights, each the mean
// over the query heads of a KV head, or each query head's own. Scores are computed once more from
// the keys, beside the log_sums that attention left, so that no matrix of queries by keys exists. A
// token's sum adds row by row in the rows' order, whatever the chunks and threads. Layers without
// window only.
struct ColumnSums {
  uint32_t first_row = 0;  // rows of the call before it are not counted
  float* sums = nullptr;   // [kv_heads, stride], by token, from tile `first_tile` on; added to
  size_t stride = 0;       // whole tiles
  ScoreNoise noise;
  bool by_query_head = false;  // sums are [heads, stride]
  uint32_t first_tile = 0;     // tiles before it are not read
  // Not null: of the call's rows only these count, `probes` of them, ascending, each less
  // `probe_base`. Without noise.
  const uint32_t* probe = nullptr;
  uint32_t probes = 0, probe_base = 0;
};
uint32_t ObserveTasks(const AttentionArgs& args);
// `scratch` as for AttendTask. The tasks of one call touch different sums.
void ObserveTask(const AttentionArgs& args, const ColumnSums& to, uint32_t task, uint8_t* scratch);
// With noise, these go before them: they fill noise.log_sums.
uint32_t NoiseTasks(const AttentionArgs& args);
void NoiseTask(const AttentionArgs& args, const ColumnSums& to, uint32_t task, uint8_t* scratch);

}  // namespace snug
