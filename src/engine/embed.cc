#include "engine/embed.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "base/clock.h"
#include "kernel/ops.h"

namespace snug {
namespace {

class Embedder {
 public:
  Embedder(Engine& engine, const EmbedOptions& options, const TakeEmbedding& take)
      : engine_(engine),
        pooling_(options.pooling.value_or(engine.config().pooling)),
        normalize_(options.normalize.value_or(engine.config().normalize)),
        truncate_(options.truncate),
        take_(take),
        pooled_(engine.config().dim) {
    tokens_.reserve(engine.plan().chunk);
    lengths_.reserve(engine.options().sequences);
    items_.reserve(engine.options().sequences);
  }

  Status Add(const std::string& text);
  // Runs what has been added.
  Status Flush();
  const EmbedStats& stats() const { return stats_; }

 private:
  // Cuts text_ to `context` tokens; those that end every text stay.
  void Truncate(uint32_t context);
  // The embedding of rows [first, first + n) of the last step.
  std::span<const float> Pool(uint32_t first, uint32_t n);

  Engine& engine_;
  const Pooling pooling_;
  const bool normalize_, truncate_;
  const TakeEmbedding& take_;
  std::vector<Token> text_, tokens_;  // of the text at hand; of the step
  std::vector<uint32_t> lengths_;     // of the step's texts
  std::vector<StepItem> items_;
  std::vector<float> pooled_;  // [dim]
  EmbedStats stats_;
};

Status Embedder::Add(const std::string& text) {
  const uint64_t number = stats_.texts + lengths_.size() + 1;
  text_.clear();
  engine_.tokenizer().Encode(text, {}, &text_);
  const uint32_t context = engine_.options().context;
  if (text_.empty()) {
    return MakeError(Code::kBadInput,
                     fmt::format("text {} is empty, and the model adds no tokens", number));
  }
  if (text_.size() > context) {
    if (!truncate_) {
      return MakeError(Code::kDoesNotFit,
                       fmt::format("text {} has {} tokens, more than the context of {}", number,
                                   text_.size(), context),
                       "--truncate cuts such texts off",
                       {{"text", std::to_string(number)},
                        {"tokens", std::to_string(text_.size())},
                        {"context", std::to_string(context)}});
    }
    Truncate(context);
    ++stats_.truncated;
  }
  if (lengths_.size() == engine_.options().sequences ||
      tokens_.size() + text_.size() > engine_.plan().chunk) {
    SNUG_TRY(Flush());
  }
  tokens_.insert(tokens_.end(), text_.begin(), text_.end());
  lengths_.push_back(static_cast<uint32_t>(text_.size()));
  return {};
}

void Embedder::Truncate(uint32_t context) {
  std::vector<Token> none;
  engine_.tokenizer().Encode("", {}, &none);
  const auto differ = std::mismatch(none.rbegin(), none.rend(), text_.rbegin()).first;
  const auto ending = std::min<size_t>(static_cast<size_t>(differ - none.rbegin()), context);
  std::copy(text_.end() - ending, text_.end(), text_.begin() + (context - ending));
  text_.resize(context);
}

std::span<const float> Embedder::Pool(uint32_t first, uint32_t n) {
  const auto row = engine_.hidden(first);
  std::copy(row.begin(), row.end(), pooled_.begin());
  if (pooling_ == Pooling::kMean) {
    for (uint32_t r = first + 1; r < first + n; ++r) {
      AddTo(engine_.hidden(r).data(), pooled_.size(), pooled_.data());
    }
    Scale(1 / static_cast<float>(n), pooled_.size(), pooled_.data());
  }
  if (normalize_) {
    double squares = 0;
    for (const float v : pooled_) squares += double{v} * v;
    const double length = std::max(std::sqrt(squares), 1e-12);
    Scale(static_cast<float>(1 / length), pooled_.size(), pooled_.data());
  }
  return pooled_;
}

Status Embedder::Flush() {
  if (lengths_.empty()) return {};
  const auto start = Clock::now();
  items_.clear();
  uint32_t row = 0;
  for (uint32_t i = 0; i < lengths_.size(); ++i) {
    const std::span<const Token> all(tokens_);
    items_.push_back({i, all.subspan(row, lengths_[i]), StepItem::Logits::kNone});
    row += lengths_[i];
  }
  SNUG_TRY(engine_.Step(items_));
  row = 0;
  for (uint32_t i = 0; i < lengths_.size(); ++i) {
    engine_.Clear(i);
    const auto embedding = Pool(row, lengths_[i]);
    row += lengths_[i];
    take_(embedding, lengths_[i]);
  }
  stats_.seconds += SecondsSince(start);
  stats_.texts += lengths_.size();
  stats_.tokens += tokens_.size();
  tokens_.clear();
  lengths_.clear();
  return {};
}

}  // namespace

Result<EmbedStats> Embed(Engine& engine, const EmbedOptions& options, const NextText& next,
                         const TakeEmbedding& take) {
  assert(engine.config().encoder);
  Embedder embedder(engine, options, take);
  std::string text;
  while (true) {
    SNUG_ASSIGN(const bool more, next(&text));
    if (!more) break;
    SNUG_TRY(embedder.Add(text));
  }
  SNUG_TRY(embedder.Flush());
  return embedder.stats();
}

}  // namespace snug
