// The cache where a keep method merges rows.
#include "kv/cache.h"

namespace snug {

// One head's rows where they lie.
class CachedRows final : public MergeRows {
 public:
  CachedRows(KvCache& cache, uint32_t sequence, uint32_t layer, uint32_t head)
      : cache_(cache),
        sequence_(sequence),
        layer_(layer),
        kept_(cache.kept_row_[layer]),
        head_(head) {}

  void Load(uint32_t row, float* key, float* value) const override {
    const KvLayout& l = cache_.layout_;
    LoadKey(l.key_type, Page(row), l.head_dim, row % kTileTokens, key);
    LoadValue(l.value_type, Page(row) + cache_.key_tile_, l.head_dim, row % kTileTokens, value);
  }
  void Store(uint32_t row, const float* key, const float* value) override {
    const KvLayout& l = cache_.layout_;
    StoreKey(l.key_type, key, l.head_dim, row % kTileTokens, Page(row));
    StoreValue(l.value_type, value, l.head_dim, row % kTileTokens, Page(row) + cache_.key_tile_);
  }
  void Move(uint32_t from, uint32_t to) override {
    cache_.MoveRow(sequence_, layer_, head_, from, to);
  }
  uint32_t members(uint32_t row) const override {
    return cache_.kept_.members(sequence_, kept_, head_, row);
  }
  void set_members(uint32_t row, uint32_t tokens) override {
    cache_.kept_.SetMembers(sequence_, kept_, head_, row, tokens);
  }

 private:
  uint8_t* Page(uint32_t row) const {
    return cache_.page(sequence_, layer_, row / kTileTokens, head_);
  }

  KvCache& cache_;
  const uint32_t sequence_, layer_, kept_, head_;
};

uint32_t KvCache::Merge(uint32_t sequence, uint32_t layer, uint32_t stay, ThreadPool& pool) {
  const Merging& merging = *layout_.keep->merging();
  const uint32_t held = rows(sequence, layer);
  const bool prompt = kept_.prompt_tokens() != 0;
  uint32_t left = stay;
  pool.For(layout_.kv_heads, [&](size_t i, int) {
    const auto head = static_cast<uint32_t>(i);
    CachedRows cached(*this, sequence, layer, head);
    uint32_t n = stay;
    if (prompt) {
      merging.EndPrompt(cached, layout_.head_dim, held, stay, kept_.merge_room(head));
    } else {
      n = merging.EndToken(cached, layout_.head_dim, held, kept_.merge_room(head));
    }
    kept_.EndMerge(sequence, kept_row_[layer], head, held, n);
    if (head == 0) left = n;
  });
  return left;
}

}  // namespace snug
