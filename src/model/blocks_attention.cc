// Attention: projections, rotary embedding, the cache, and the walk over sequences.
#include <algorithm>
#include <cassert>

#include "kernel/ops.h"
#include "model/blocks_internal.h"

namespace snug {

void Blocks::ProjectQkv(const LayerWeights& w) {
  const size_t q = size_t{config_.heads} * config_.head_dim;
  const size_t kv = size_t{config_.kv_heads} * config_.head_dim;
  const bool gated = config_.attention_gate;
  float* queries = gated ? projected_ : q_;
  const Product products[] = {{w[Role::kQ], w.vec(Role::kQBias), queries, gated ? 2 * q : q},
                              {w[Role::kK], w.vec(Role::kKBias), k_, kv},
                              {w[Role::kV], w.vec(Role::kVBias), v_, kv}};
  const std::span<const Product> all(products);
  Multiply(pass_ == Pass::kRead ? all.first(1) : wants_queries() ? all : all.subspan(1));
  if (!gated) return;
  const size_t d = config_.head_dim;
  ForRows(rows_, [&](uint32_t r) {
    for (size_t h = r * size_t{config_.heads}; h < (r + size_t{1}) * config_.heads; ++h) {
      std::copy_n(projected_ + 2 * h * d, d, q_ + h * d);
    }
  });
}

void Blocks::GateAttended() {
  if (stored_) return;
  const size_t d = config_.head_dim;
  ForRows(rows_, [&](uint32_t r) {
    for (size_t h = r * size_t{config_.heads}; h < (r + size_t{1}) * config_.heads; ++h) {
      SigmoidMul(projected_ + (2 * h + 1) * d, d, attended_ + h * d);
    }
  });
}

void Blocks::RotateAndStore(uint32_t layer, const LayerWeights& w) {
  const ModelConfig& c = config_;
  const uint32_t d = c.head_dim;
  const bool local = c.window[layer] != 0;
  const RopeConfig& rope = local ? c.local_rope : c.rope;
  const bool rotated = c.no_rope.empty() || !c.no_rope[layer];
  // Norms heads, each or all at once, and rotates them.
  const auto prepare = [&](float* head, uint32_t heads, const float* norm, const float* angles) {
    if (norm != nullptr && c.joint_head_norm) RmsNorm(head, norm, c.eps, size_t{heads} * d, head);
    for (uint32_t h = 0; h < heads; ++h, head += d) {
      if (norm != nullptr && !c.joint_head_norm) RmsNorm(head, norm, c.eps, d, head);
      if (rotated) (rope.interleaved ? RopeInterleaved : RopeNeox)(angles, rope.dim, head);
    }
  };
  const auto queries_of = [&](uint32_t r) {
    prepare(q_ + size_t{r} * c.heads * d, c.heads, w.vec(Role::kQNorm),
            angles_ + r * 2 * size_t{d} + (local ? d : 0));
  };
  if (pass_ == Pass::kRead) return ForRows(rows_, queries_of);
  const bool queries = wants_queries();
  const KvLayout& kv = cache_.layout();
  const uint32_t groups = kv.groups(), group_heads = c.kv_heads / groups;
  const auto store_key = kv.KeyRows(layer) ? StoreValue : StoreKey;
  // `at` is the row of the cache, which is the token's position where none is dropped.
  auto row_of = [&](const RowSpan& s, uint32_t first_at, uint32_t at) {
    const uint32_t r = s.first_row + (at - first_at);
    const float* angles = angles_ + r * 2 * size_t{d} + (local ? d : 0);
    float* k = k_ + size_t{r} * c.kv_heads * d;
    float* v = v_ + size_t{r} * c.kv_heads * d;
    if (queries) queries_of(r);
    prepare(k, c.kv_heads, w.vec(Role::kKNorm), angles);
    const size_t key_bytes = cache_.key_tile_bytes(), value_bytes = cache_.value_tile_bytes();
    for (uint32_t g = 0; g < groups; ++g) {
      uint8_t* page = cache_.page(s.sequence, layer, at / kTileTokens, g);
      uint8_t* values = page + group_heads * key_bytes;
      for (uint32_t h = 0; h < group_heads; ++h, k += d, v += d) {
        store_key(kv.key_type, k, d, at % kTileTokens, page + h * key_bytes);
        StoreValue(kv.value_type, v, d, at % kTileTokens, values + h * value_bytes);
      }
    }
  };
  // A task is one tile, so that no two threads encode into the same tile.
  const auto tiles_of = [&](const RowSpan& s) {
    const uint32_t first = cache_.rows(s.sequence, layer);
    return (first + s.rows - 1) / kTileTokens - first / kTileTokens + 1;
  };
  size_t tiles = 0;
  for (const RowSpan& s : spans_) tiles += tiles_of(s);
  const auto tile = [&](size_t t, int) {
    const RowSpan* s = spans_.data();
    for (; t >= tiles_of(*s); ++s) t -= tiles_of(*s);
    const uint32_t first = cache_.rows(s->sequence, layer);
    const auto tile_at = static_cast<uint32_t>(first / kTileTokens + t);
    const uint32_t begin = std::max<uint32_t>(first, tile_at * kTileTokens);
    const uint32_t end = std::min<uint32_t>(first + s->rows, (tile_at + 1) * kTileTokens);
    for (uint32_t at = begin; at < end; ++at) row_of(*s, first, at);
    if (kv.Reads(layer)) {
      const uint32_t tile_begin = tile_at * kTileTokens;
      cache_.IndexRows(s->sequence, layer, tile_at, begin - tile_begin, end - tile_begin);
    }
  };
  if (tiles == 1) {
    tile(0, 0);
  } else {
    pool_.For(tiles, tile);
  }
  if (pass_ == Pass::kStore) {
    block_reader_.Note(q_, k_, spans_[0].first_pos, rows_, pool_);
    stored_ = true;
    return;
  }
  if (observer_ != nullptr) {
    observer_->Rotated(layer, q_, k_, v_, rows_, spans_.front().first_pos);
  }
}

void Blocks::BeginPass(Pass pass, uint32_t tokens) {
  pass_ = pass;
  if (pass == Pass::kStore) block_reader_.Begin(tokens);
}

bool Blocks::wants_queries() const {
  return pass_ != Pass::kStore || block_reader_.WantsQueries(spans_[0].first_pos, rows_);
}

void Blocks::AttendGroup(std::span<const AttentionArgs> group) {
  constexpr size_t kMaxGroup = 64;
  assert(group.size() <= kMaxGroup);
  std::array<AttentionPlan, kMaxGroup> plans;
  std::array<uint32_t, kMaxGroup> first_task{};
  std::array<size_t, kMaxGroup> first_partial{};
  uint32_t tasks = 0;
  size_t partials = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    plans[i] = PlanAttention(group[i], pool_.size());
    first_task[i] = tasks;
    first_partial[i] = partials;
    tasks += plans[i].tasks;
    if (plans[i].split) {
      partials += PartialFloats(group[i].tokens, config_.heads, config_.head_dim,
                                group[i].first_pos + group[i].tokens);
    }
  }
  pool_.For(tasks, [&](size_t task, int thread) {
    size_t i = group.size() - 1;
    while (task < first_task[i]) --i;
    AttendTask(group[i], plans[i], static_cast<uint32_t>(task) - first_task[i],
               thread_scratch_ + thread * thread_scratch_bytes_, partial_ + first_partial[i]);
  });
  for (size_t i = 0; i < group.size(); ++i) {
    if (!plans[i].split) continue;
    ForRows(group[i].tokens, [&](uint32_t r) {
      for (uint32_t h = 0; h < config_.heads; ++h) {
        CombinePartials(group[i], plans[i], partial_ + first_partial[i], r, h);
      }
    });
  }
}

void Blocks::AttendChosenRows(uint32_t layer) {
  for (const auto& [rows, placed] : choosing_) {
    if (pass_ == Pass::kRead) {
      kv_bytes_ += block_reader_.Attend(rows, pool_, thread_scratch_, thread_scratch_bytes_);
      continue;
    }
    AttentionArgs a = rows;
    for (a.tokens = 1; a.first_pos < rows.first_pos + rows.tokens; ++a.first_pos) {
      auto read = reader_.Attend(a, layer, pool_, thread_scratch_, thread_scratch_bytes_, placed);
      if (!read.ok()) {
        if (!error_) error_ = std::move(read).error();
        return;
      }
      kv_bytes_ += *read;
      a.q += a.q_stride;
      a.out += a.out_stride;
    }
  }
}

void Blocks::Observe(uint32_t layer) {
  for (size_t i = 0; i < args_.size(); ++i) {
    const AttentionArgs& a = args_[i];
    const RowSpan& s = spans_[i];
    ColumnSums sums = cache_.Watch(s.sequence, layer, s.first_pos, a.tokens);
    if (sums.first_row >= a.tokens) continue;
    const auto run = [&](uint32_t tasks, auto task_of) {
      pool_.For(tasks, [&](size_t task, int thread) {
        task_of(a, sums, static_cast<uint32_t>(task),
                thread_scratch_ + thread * thread_scratch_bytes_);
      });
      const uint64_t tiles =
          (a.first_pos + a.tokens + kTileTokens - 1) / kTileTokens - sums.first_tile;
      kv_bytes_ += tiles * config_.kv_heads * cache_.key_tile_bytes();
    };
    if (sums.noise.temperature != 0) {
      const size_t rows = size_t{layout_.chunk} * config_.heads;
      sums.noise.log_sums = log_sums_ + rows + size_t{s.first_row} * config_.heads;
      run(NoiseTasks(a), NoiseTask);
    }
    run(ObserveTasks(a), ObserveTask);
  }
}

void Blocks::AddDense(const AttentionArgs& a) {
  args_.push_back(a);
  const uint32_t seen = a.first_pos + a.tokens;
  uint32_t read = a.window == 0 ? seen : std::min(seen, a.window + a.tokens);
  if (a.coded.codec != nullptr) read -= std::min(a.coded.keys, a.coded.values);
  kv_bytes_ += (read + kTileTokens - 1) / kTileTokens * cache_.layout().tile_bytes();
}

void Blocks::Divide(const AttentionArgs& a, const PlacedLayer& placed) {
  const bool blocks = pass_ == Pass::kRead;
  const auto dense = [&](uint32_t row) {
    const uint32_t position = a.first_pos + row;
    if (placed.rows != nullptr) return false;  // all of them may be chosen
    return blocks ? block_reader_.Dense(position) : !reader_.Chooses(position + 1);
  };
  for (uint32_t first = 0, last; first < a.tokens; first = last) {
    for (last = first + 1; last < a.tokens && dense(last) == dense(first);) ++last;
    AttentionArgs part = a;
    part.tokens = last - first;
    part.first_pos += first;
    part.q += first * a.q_stride;
    part.out += first * a.out_stride;
    if (dense(first)) {
      AddDense(part);
    } else {
      choosing_.push_back({part, placed});
    }
  }
}

void Blocks::Attend(uint32_t layer, const float* sinks) {
  if (stored_) return;
  const ModelConfig& c = config_;
  const size_t width = size_t{c.heads} * c.head_dim;
  args_.clear();
  choosing_.clear();
  for (const RowSpan& s : spans_) {
    AttentionArgs a;
    a.key_type = cache_.layout().key_type;
    a.value_type = cache_.layout().value_type;
    a.heads = c.heads;
    a.kv_heads = c.kv_heads;
    a.head_dim = c.head_dim;
    a.window = c.window[layer];
    a.causal = !c.encoder;
    a.scale = c.attention_scale;
    a.softcap = c.attention_softcap;
    a.exact = exact_;
    a.sinks = sinks;
    a.q = q_ + s.first_row * width;
    a.q_stride = width;
    a.tokens = s.rows;
    a.first_pos = cache_.rows(s.sequence, layer);
    a.tiles = cache_.tiles(s.sequence, layer);
    a.page_heads = c.kv_heads / cache_.layout().groups();
    a.table_stride = cache_.table_stride();
    a.key_rows = cache_.layout().KeyRows(layer);
    a.coded = cache_.coded(s.sequence, layer);
    a.shared = cache_.shared(s.sequence, layer);
    const KeptRows::Bias bias = cache_.bias(s.sequence, layer);
    a.bias = bias.rows;
    a.bias_stride = bias.stride;
    if (log_sums_ != nullptr && cache_.layout().Observes(layer)) {
      a.log_sums = log_sums_ + size_t{s.first_row} * c.heads;
    }
    a.out = attended_ + s.first_row * width;
    a.out_stride = width;
    if (pass_ == Pass::kRead) {
      a.first_pos = s.first_pos;
      a.bias = nullptr;  // each row still stands for one token
      Divide(a, {});
    } else if (cache_.layout().Reads(layer) && !s.prompt) {
      Divide(a, cache_.placed(s.sequence, layer));
    } else {
      if (a.coded.codec != nullptr) kv_bytes_ += cache_.coded_bytes(s.sequence, layer);
      kv_bytes_ += cache_.shared_bytes_read(s.sequence, layer);
      AddDense(a);
    }
  }
  // Groups whose split rows fit the partials.
  const auto split_rows = [&](const AttentionArgs& a) {
    return PlanAttention(a, pool_.size()).split ? a.tokens : 0;
  };
  size_t first = 0;
  while (first < args_.size()) {
    size_t last = first;
    uint32_t rows = 0;
    while (last < args_.size() && last - first < 64 &&
           (last == first || rows + split_rows(args_[last]) <= kSplitRows)) {
      rows += split_rows(args_[last]);
      ++last;
    }
    AttendGroup({args_.data() + first, last - first});
    first = last;
  }
  AttendChosenRows(layer);
  if (log_sums_ != nullptr && cache_.layout().Observes(layer)) Observe(layer);
}

void Blocks::ProjectOut(const LayerWeights& w) {
  if (stored_) return;
  Prepare(attended_, rows_, config_.heads * config_.head_dim);
  const Product products[] = {{w[Role::kO], w.vec(Role::kOBias), h_, config_.dim}};
  Multiply(products);
}

}  // namespace snug
