#include "engine/lookup.h"

#include <algorithm>
#include <bit>

namespace snug {
namespace {

constexpr double kSmooth = 0.2;       // weight of the newest measurement
constexpr uint32_t kPauseSteps = 32;  // before a losing speculation is tried again
constexpr uint32_t kOrders = 3;       // n-gram lengths indexed

uint32_t Slots(uint32_t context) { return std::bit_ceil(context * kOrders * 2); }

}  // namespace

uint64_t Lookup::Bytes(uint32_t context) {
  return Buffer::Reserved(uint64_t{context} * sizeof(Token) + Slots(context) * sizeof(uint32_t),
                          Pages::kNormal);
}

Result<Lookup> Lookup::Create(uint32_t context, uint32_t max_draft, Ledger& ledger) {
  Lookup l;
  SNUG_ASSIGN(l.buffer_, Buffer::Allocate(ledger, Owner::kScratch, Bytes(context), Pages::kNormal,
                                          "prompt lookup"));
  l.tokens_ = l.buffer_.as<Token>();
  l.latest_ = reinterpret_cast<uint32_t*>(l.tokens_ + context);
  l.slots_ = Slots(context);
  l.capacity_ = context;
  l.max_draft_ = max_draft;
  return l;
}

uint32_t Lookup::Slot(const Token* end, uint32_t n) const {
  uint64_t h = n;
  for (uint32_t i = 1; i <= n; ++i)
    h = (h ^ static_cast<uint32_t>(end[-static_cast<int>(i)])) * 0x9e3779b97f4a7c15u;
  return static_cast<uint32_t>(h >> 32) & (slots_ - 1);
}

void Lookup::Append(Token token) {
  if (size_ == capacity_) return;
  // The n-grams that end before this token now have a continuation.
  for (uint32_t n = kMinMatch; n <= kMaxMatch && n <= size_; ++n)
    latest_[Slot(tokens_ + size_, n)] = size_;
  tokens_[size_++] = token;
}

bool Lookup::Pays(size_t draft) const {
  if (single_s_ == 0 || batch_s_ == 0) return true;
  const double expected = 1 + rate_ * static_cast<double>(draft);
  return expected * single_s_ > batch_s_;
}

std::span<const Token> Lookup::Draft(size_t room) {
  const size_t most = std::min<size_t>(room, max_draft_);
  if (most == 0) return {};
  if (pause_ > 0) {
    --pause_;
    return {};
  }
  uint32_t from = 0;
  for (uint32_t n = kMaxMatch; n >= kMinMatch && from == 0; --n) {
    if (n > size_) continue;
    const uint32_t at = latest_[Slot(tokens_ + size_, n)];
    if (at != 0 && at < size_ && std::equal(tokens_ + at - n, tokens_ + at, tokens_ + size_ - n))
      from = at;
  }
  // After a mismatch the old text usually goes on one token later.
  if (from == 0 && follow_ != 0 && follow_ < size_ && tokens_[follow_ - 1] == tokens_[size_ - 1])
    from = follow_;
  if (from == 0) return {};
  follow_ = from;
  const size_t n = std::min<size_t>(most, size_ - from);
  if (!Pays(n)) {
    pause_ = kPauseSteps;
    return {};
  }
  return {tokens_ + from, n};
}

void Lookup::Report(size_t drafted, size_t accepted, double seconds) {
  auto smooth = [](double& mean, double value) {
    mean = mean == 0 ? value : mean + kSmooth * (value - mean);
  };
  if (drafted == 0) {
    smooth(single_s_, seconds);
    if (follow_ != 0) ++follow_;
    return;
  }
  smooth(batch_s_, seconds);
  rate_ += kSmooth * (static_cast<double>(accepted) / static_cast<double>(drafted) - rate_);
  follow_ += static_cast<uint32_t>(accepted) + 1;
}

}  // namespace snug
