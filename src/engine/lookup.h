// Prompt-lookup speculation (Saxena 2023): where the last tokens have occurred before, what
// followed them then is proposed as what follows now, and verified in one batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "text/tokenizer.h"

namespace snug {

class Lookup {
 public:
  // For sequences of up to `context` tokens and drafts of up to `max_draft`; its tables are
  // reserved (Owner::kScratch).
  static Result<Lookup> Create(uint32_t context, uint32_t max_draft, Ledger& ledger);
  static uint64_t Bytes(uint32_t context);

  void Append(Token token);
  // What may follow, at most `room` tokens; empty where nothing is known or speculation does not
  // pay. Valid until the next call.
  std::span<const Token> Draft(size_t room);
  // The outcome of the step that followed a Draft: how many of `drafted` tokens held, and how long
  // it took.
  void Report(size_t drafted, size_t accepted, double seconds);

 private:
  static constexpr uint32_t kMinMatch = 2, kMaxMatch = 4;
  uint32_t Slot(const Token* end, uint32_t n) const;
  bool Pays(size_t draft) const;

  Buffer buffer_;
  Token* tokens_ = nullptr;     // [context]
  uint32_t* latest_ = nullptr;  // [slots] end of the last occurrence of an n-gram + 1; 0 where none
  uint32_t slots_ = 0, capacity_ = 0, size_ = 0, max_draft_ = 0;
  uint32_t follow_ = 0;                // where the last draft came from, past what was accepted
  double single_s_ = 0, batch_s_ = 0;  // smoothed times of a step without and with a draft
  double rate_ = 1;                    // smoothed share of drafted tokens that held
  uint32_t pause_ = 0;                 // steps until the next try where it does not pay
};

}  // namespace snug
