// A vocabulary in one reserved buffer: texts, types, scores, and a hash from text to token.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/ledger.h"
#include "base/status.h"
#include "format/gguf.h"

namespace snug {

enum class TokenType : uint8_t {
  kUndefined,
  kNormal,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte
};

class Vocabulary {
 public:
  // `extra` bytes, aligned to 64, are reserved behind the tables for the algorithm's own.
  static Result<Vocabulary> Load(const GgufFile& file, bool scores, uint64_t extra, Ledger& ledger);
  static Result<uint64_t> PlannedBytes(const GgufFile& file, bool scores, uint64_t extra);

  uint32_t size() const { return size_; }
  std::string_view text(int32_t token) const {
    return {blob_ + offsets_[token], offsets_[token + 1] - offsets_[token]};
  }
  TokenType type(int32_t token) const { return static_cast<TokenType>(types_[token]); }
  float score(int32_t token) const { return scores_[token]; }
  // The first token with that text, or -1.
  int32_t Find(std::string_view text) const;
  uint8_t* extra() { return extra_; }
  const uint8_t* extra() const { return extra_; }
  uint64_t bytes() const { return buffer_.size(); }

  // Finds the next user-defined token's text (or, with `control`, control token's) in text from
  // `from` on, leftmost and longest. -1 where there is none.
  struct Special {
    int32_t token = -1;
    size_t at = 0, bytes = 0;
  };
  Special NextSpecial(std::string_view text, size_t from, bool control) const;

 private:
  struct Sizes {
    uint64_t tokens = 0, blob = 0, slots = 0, total = 0;
  };
  static Result<Sizes> Measure(const GgufFile& file, bool scores, uint64_t extra);

  Buffer buffer_;
  uint32_t size_ = 0;
  uint64_t slots_ = 0;
  const char* blob_ = nullptr;
  uint32_t* offsets_ = nullptr;  // [size + 1]
  float* scores_ = nullptr;      // [size], null without
  uint8_t* types_ = nullptr;     // [size]
  int32_t* hash_ = nullptr;      // [slots], -1 where empty
  uint8_t* extra_ = nullptr;
  std::vector<uint32_t> special_lengths_;  // distinct, descending
  bool special_start_[256] = {};           // bytes that begin a special token
};

}  // namespace snug
