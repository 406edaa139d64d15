#include "engine/evaluate.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/file.h"
#include "engine/logits.h"
#include "format/fingerprint.h"
#include "kernel/targets.h"

namespace snug {
namespace {

Error Interrupted() { return MakeError(Code::kCancelled, "interrupted"); }

}  // namespace

std::string HashOfText(std::string_view text) {
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

Result<std::string> HashOfEnds(const std::string& path) {
  SNUG_ASSIGN(const File file, File::Open(path));
  std::vector<uint8_t> end(std::min<uint64_t>(file.size(), kMiB));
  uint64_t hash = file.size();
  for (const uint64_t at : {uint64_t{0}, file.size() - end.size()}) {
    SNUG_TRY(file.ReadAt(at, end.data(), end.size()));
    hash = XXH3_64bits_withSeed(end.data(), end.size(), hash);
  }
  return fmt::format("{:016x}", hash);
}

Result<std::string> CacheName(const EngineOptions& options, const MemoryPlan& plan) {
  std::string name = plan.cache;
  const bool channels = options.read != nullptr && options.read->needs_channels();
  const bool codebooks = options.codec != nullptr && options.codec->needs_codebooks();
  const bool order = options.codec != nullptr && options.codec->needs_order();
  for (const std::string& path :
       {channels ? options.channels : std::string(), codebooks ? options.codebooks : std::string(),
        order ? options.permutation : std::string()}) {
    if (path.empty()) continue;
    SNUG_ASSIGN(const std::string hash, HashOfEnds(path));
    name += " by " + hash;
  }
  return name;
}

Result<EvaluationKey> MakeEvaluationKey(const EngineOptions& options, std::string_view text) {
  EvaluationKey key;
  {
    SNUG_ASSIGN(const auto file, ModelFile::Open(options.model_path));
    SNUG_ASSIGN(key.weights, WeightsFingerprint(*file));
  }
  SNUG_ASSIGN(const MemoryPlan plan, PlanFile(options));
  SNUG_ASSIGN(key.cache, CacheName(options, plan));
  if (!options.weights.empty()) key.cache += " --weights " + options.weights;
  key.text = HashOfText(text);
  ChooseTarget();
  key.target = KernelTarget();
  key.context = options.context;
  return key;
}

Result<Evaluation> Evaluation::Open(Engine& engine, const Files& files, uint64_t rows,
                                    std::function<bool()> go_on) {
  Evaluation e(engine);
  e.go_on_ = std::move(go_on);
  const uint64_t vocab = engine.config().vocab;
  if (!files.write.empty()) {
    SNUG_ASSIGN(SafetensorsWriter w,
                SafetensorsWriter::Create(files.write, {{"logits", {rows, vocab}}}));
    e.writer_.emplace(std::move(w));
  }
  if (files.reference.empty()) return e;
  SNUG_ASSIGN(SafetensorsFile f, SafetensorsFile::Open(files.reference));
  const SafetensorInfo* t = f.Find("logits");
  if (t == nullptr || t->dtype != "F32" || t->shape != std::vector<uint64_t>{rows, vocab}) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{} holds no reference of {} x {} logits", files.reference, rows, vocab),
        "make it with --save-reference and the same text, -c and --chunks");
  }
  e.offset_ = t->offset;
  e.reference_.emplace(std::move(f));
  e.row_.resize(vocab);
  return e;
}

Status Evaluation::Chunk(std::span<const Token> tokens, size_t first_scored, bool all) {
  engine_->Clear(0);
  for (size_t i = 0; i < tokens.size(); i += kRows) {
    if (go_on_ && !go_on_()) return Interrupted();
    const size_t n = std::min<size_t>(kRows, tokens.size() - i);
    const StepItem item{0, tokens.subspan(i, n), StepItem::Logits::kAll};
    SNUG_TRY(engine_->Step({&item, 1}));
    for (size_t t = i; t < i + n; ++t) {
      const bool last = t + 1 >= tokens.size();
      if (!all && (last || t + 1 < first_scored)) continue;
      SNUG_TRY(
          Row(engine_->logits(t - i), t + 1, last ? std::nullopt : std::optional(tokens[t + 1])));
    }
  }
  return {};
}

Status Evaluation::Continuation(std::span<const Token> tokens, uint32_t prefix) {
  engine_->Clear(0);
  const auto go_on = [&](uint32_t, uint32_t) { return !go_on_ || go_on_(); };
  std::vector<Token> read;
  SNUG_ASSIGN(const std::vector<uint32_t> chosen, engine_->Reduce(tokens.first(prefix), go_on));
  for (const uint32_t t : chosen) read.push_back(tokens[t]);
  SNUG_TRY(engine_->Prefill(0, read, go_on));
  for (size_t i = prefix; i + 1 < tokens.size(); ++i) {
    if (go_on_ && !go_on_()) return Interrupted();
    const StepItem item{0, tokens.subspan(i, 1), StepItem::Logits::kLast};
    const auto start = Clock::now();
    SNUG_TRY(engine_->Step({&item, 1}));
    if (bucket_ != 0) {
      Tally& bucket = BucketOf(i + 1);
      bucket.seconds += SecondsSince(start);
      bucket.steps += 1;
      bucket.kv_held = engine_->kv_bytes_held();
    }
    SNUG_TRY(Row(engine_->logits(0), i + 1, tokens[i + 1]));
  }
  return {};
}

Result<EvaluationRecord> Evaluation::Finish() {
  if (writer_) SNUG_TRY(writer_->Finish());
  EvaluationRecord record;
  record.tokens = all_.tokens;
  record.nll = all_.tokens > 0 ? all_.nll / static_cast<double>(all_.tokens) : 0;
  if (all_.compared > 0) {
    const auto compared = static_cast<double>(all_.compared);
    record.kl_mean = all_.kl / compared;
    record.kl_max = all_.kl_max;
    record.top1 = static_cast<double>(all_.same_top) / compared;
  }
  record.buckets = buckets();
  return record;
}

std::vector<EvaluationBucket> Evaluation::buckets() const {
  std::vector<EvaluationBucket> all;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    const Tally& t = buckets_[i];
    if (t.tokens == 0 && t.compared == 0) continue;
    EvaluationBucket& b = all.emplace_back();
    b.first = uint64_t{bucket_} * i;
    b.last = b.first + bucket_ - 1;
    b.tokens = t.tokens;
    if (t.tokens > 0) b.nll = t.nll / static_cast<double>(t.tokens);
    if (t.compared > 0) {
      b.kl_mean = t.kl / static_cast<double>(t.compared);
      b.top1 = static_cast<double>(t.same_top) / static_cast<double>(t.compared);
    }
    if (t.steps == 0) continue;
    b.kv_held = t.kv_held;
    b.seconds = t.seconds / static_cast<double>(t.steps);
  }
  return all;
}

Evaluation::Tally& Evaluation::BucketOf(size_t position) {
  const size_t i = position / bucket_;
  if (i >= buckets_.size()) buckets_.resize(i + 1);
  return buckets_[i];
}

Status Evaluation::Row(std::span<const float> logits, size_t position, std::optional<Token> next) {
  Tally* const tallies[] = {&all_, bucket_ == 0 ? nullptr : &BucketOf(position)};
  const std::span<Tally* const> counted(tallies, bucket_ == 0 ? 1 : 2);
  if (next) {
    const double nll = NegativeLogLikelihood(logits, static_cast<size_t>(*next));
    for (Tally* t : counted) {
      t->nll += nll;
      ++t->tokens;
    }
  }
  if (writer_) SNUG_TRY(writer_->Append(logits.data(), logits.size()));
  if (!reference_) return {};
  SNUG_TRY(reference_->file().ReadAt(offset_, row_.data(), row_.size() * sizeof(float)));
  offset_ += row_.size() * sizeof(float);
  Compare(logits, counted);
  return {};
}

void Evaluation::Compare(std::span<const float> logits, std::span<Tally* const> tallies) {
  const std::span<const float> reference(row_);
  const double divergence = Divergence(reference, logits);
  const bool same_top = LikeliestOf(logits) == LikeliestOf(reference);
  for (Tally* t : tallies) {
    t->kl += divergence;
    t->kl_max = std::max(t->kl_max, divergence);
    t->same_top += same_top ? 1 : 0;
    ++t->compared;
  }
}

}  // namespace snug
