#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernel/ops.h"

namespace snug {
namespace {

constexpr int kMaxRecent = 255;  // a token's uses are counted in a byte

Error Bad(const char* option, double value, const char* range) {
  return MakeError(Code::kUsage, fmt::format("{} {} is outside {}", option, value, range), {},
                   {{"option", option}, {"value", fmt::format("{}", value)}});
}

}  // namespace

Status SamplingOptions::Validate() const {
  if (!(temperature >= 0 && temperature <= 100)) return Bad("--temp", temperature, "0 .. 100");
  if (top_k < 0) return Bad("--top-k", top_k, "0 (off) and up");
  if (!(top_p > 0 && top_p <= 1)) return Bad("--top-p", top_p, "0 .. 1 (off)");
  if (!(min_p >= 0 && min_p <= 1)) return Bad("--min-p", min_p, "0 (off) .. 1");
  if (!(repeat_penalty > 0 && repeat_penalty <= 100))
    return Bad("--repeat-penalty", repeat_penalty, "0 .. 100");
  if (repeat_last < 0 || repeat_last > kMaxRecent)
    return Bad("--repeat-last-n", repeat_last, "0 .. 255");
  return {};
}

Sampler::Sampler(const SamplingOptions& options, size_t vocab)
    : options_(options), state_(options.seed) {
  if (options.temperature > 0) items_.reserve(vocab);
  if (options.repeat_penalty != 1 && options.repeat_last > 0) {
    recent_.assign(static_cast<size_t>(options.repeat_last), -1);
    count_.assign(vocab, 0);
  }
}

// SplitMix64 (Steele, Lea and Flood 2014).
double Sampler::Uniform() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

void Sampler::Accept(Token token) {
  if (recent_.empty() || token < 0 || static_cast<size_t>(token) >= count_.size()) return;
  Token& slot = recent_[accepted_++ % recent_.size()];
  if (slot >= 0) --count_[static_cast<size_t>(slot)];
  slot = token;
  ++count_[static_cast<size_t>(token)];
}

float Sampler::Penalised(Token token, float logit) const {
  if (count_.empty() || count_[static_cast<size_t>(token)] == 0) return logit;
  return logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
}

size_t Sampler::NeedsTop() const {
  if (!recent_.empty()) return 0;
  if (options_.temperature == 0) return 1;
  return static_cast<size_t>(options_.top_k);
}

Token Sampler::Sample(std::span<const float> logits) {
  if (options_.temperature == 0 && recent_.empty())
    return static_cast<Token>(ArgMax(logits.data(), logits.size()));
  if (options_.temperature == 0) {
    Token best = 0;
    float max = -INFINITY;
    for (size_t i = 0; i < logits.size(); ++i) {
      const float l = Penalised(static_cast<Token>(i), logits[i]);
      if (l > max) max = l, best = static_cast<Token>(i);
    }
    return best;
  }
  items_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    // A damaged model's logits may be no numbers: they could not be ordered.
    if (!(logits[i] > -INFINITY)) continue;
    items_.push_back({Penalised(static_cast<Token>(i), logits[i]), static_cast<Token>(i)});
  }
  if (items_.empty()) return 0;
  // Ties go to the lower id, so that the order does not depend on the selection algorithm.
  const auto before = [](const Item& a, const Item& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  };
  size_t n = items_.size();
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < n) {
    n = static_cast<size_t>(options_.top_k);
    std::nth_element(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(n), items_.end(),
                     before);
    items_.resize(n);
  }
  std::sort(items_.begin(), items_.end(), before);
  const double max = items_[0].logit;
  if (options_.top_p < 1) {
    double total = 0, sum = 0;
    for (const Item& i : items_) total += std::exp(i.logit - max);
    size_t keep = 0;
    while (keep < n && (keep == 0 || sum < options_.top_p * total))
      sum += std::exp(items_[keep++].logit - max);
    n = keep;
  }
  if (options_.min_p > 0) {
    const double least = max + std::log(static_cast<double>(options_.min_p));
    while (n > 1 && items_[n - 1].logit < least) --n;
  }
  double total = 0;
  for (size_t i = 0; i < n; ++i) total += std::exp((items_[i].logit - max) / options_.temperature);
  double draw = Uniform() * total;
  for (size_t i = 0; i + 1 < n; ++i) {
    draw -= std::exp((items_[i].logit - max) / options_.temperature);
    if (draw < 0) return items_[i].token;
  }
  return items_[n - 1].token;
}

}  // namespace snug
