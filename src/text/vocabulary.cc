#include "text/vocabulary.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>

namespace snug {
namespace {

constexpr uint64_t kMaxTokens = 1 << 24, kMaxBlob = 1 << 30;
constexpr char kTokens[] = "tokenizer.ggml.tokens";
constexpr char kScores[] = "tokenizer.ggml.scores";
constexpr char kTypes[] = "tokenizer.ggml.token_type";

uint64_t Align(uint64_t n) { return (n + 63) / 64 * 64; }

Error Bad(const GgufFile& file, const std::string& message) {
  return MakeError(Code::kBadFile, fmt::format("{}: {}", file.path(), message),
                   "the file's vocabulary is damaged or of an unknown kind");
}

bool IsSpecial(TokenType t) {
  return t == TokenType::kControl || t == TokenType::kUserDefined || t == TokenType::kUnknown;
}

}  // namespace

Result<Vocabulary::Sizes> Vocabulary::Measure(const GgufFile& file, bool scores, uint64_t extra) {
  const GgufArray* tokens = file.GetArray(kTokens);
  if (tokens == nullptr || tokens->element != GgufType::kString)
    return Bad(file, "it has no tokenizer.ggml.tokens");
  Sizes s;
  s.tokens = tokens->count;
  s.blob = tokens->bytes - 8 * tokens->count;
  if (s.tokens < 1 || s.tokens > kMaxTokens || s.blob > kMaxBlob) {
    return Bad(file, fmt::format("a vocabulary of {} tokens and {} bytes is impossible", s.tokens,
                                 s.blob));
  }
  for (const char* key : {kScores, kTypes}) {
    const GgufArray* array = file.GetArray(key);
    const bool needed = key == kScores && scores;
    if (array == nullptr && !needed) continue;
    if (array == nullptr || array->count != s.tokens || array->element == GgufType::kString) {
      return Bad(file, fmt::format("{} has {} values for {} tokens", key,
                                   array == nullptr ? 0 : array->count, s.tokens));
    }
  }
  s.slots = std::bit_ceil(s.tokens + s.tokens / 2);
  s.total = Align(s.blob) + Align(4 * (s.tokens + 1)) + (scores ? Align(4 * s.tokens) : 0) +
            Align(s.tokens) + 4 * s.slots + extra;
  return s;
}

Result<uint64_t> Vocabulary::PlannedBytes(const GgufFile& file, bool scores, uint64_t extra) {
  SNUG_ASSIGN(const Sizes s, Measure(file, scores, extra));
  return Buffer::Reserved(s.total, Pages::kNormal);
}

Result<Vocabulary> Vocabulary::Load(const GgufFile& file, bool scores, uint64_t extra,
                                    Ledger& ledger) {
  SNUG_ASSIGN(const Sizes s, Measure(file, scores, extra));
  Vocabulary v;
  SNUG_ASSIGN(v.buffer_,
              Buffer::Allocate(ledger, Owner::kVocab, s.total, Pages::kNormal, "vocabulary"));
  v.size_ = static_cast<uint32_t>(s.tokens);
  v.slots_ = s.slots;
  uint8_t* at = v.buffer_.data();
  auto take = [&](uint64_t bytes) {
    uint8_t* p = at;
    at += bytes;
    return p;
  };
  auto* blob = reinterpret_cast<char*>(take(Align(s.blob)));
  v.blob_ = blob;
  v.offsets_ = reinterpret_cast<uint32_t*>(take(Align(4 * (s.tokens + 1))));
  if (scores) v.scores_ = reinterpret_cast<float*>(take(Align(4 * s.tokens)));
  v.types_ = take(Align(s.tokens));
  v.hash_ = reinterpret_cast<int32_t*>(take(4 * s.slots));
  v.extra_ = at;

  // The type array is read where the hash will be: both have four bytes a token.
  std::fill_n(v.types_, s.tokens, static_cast<uint8_t>(TokenType::kNormal));
  if (file.GetArray(kTypes) != nullptr) {
    SNUG_TRY(file.ReadArray(kTypes, v.hash_));
    for (uint64_t i = 0; i < s.tokens; ++i) {
      if (v.hash_[i] >= 0 && v.hash_[i] <= static_cast<int32_t>(TokenType::kByte)) {
        v.types_[i] = static_cast<uint8_t>(v.hash_[i]);
      }
    }
  }
  if (scores) {
    SNUG_TRY(file.ReadArray(kScores, v.scores_));
    for (uint64_t i = 0; i < s.tokens; ++i) {
      if (std::isnan(v.scores_[i]))
        return Bad(file, fmt::format("token {} has no number for a score", i));
    }
  }
  std::fill_n(v.hash_, s.slots, -1);
  std::set<uint32_t> lengths;
  uint32_t used = 0;
  SNUG_TRY(file.ForEachString(kTokens, [&](uint64_t i, std::string_view text) {
    if (used + text.size() > s.blob) return;  // the file changed; its size was measured before
    std::memcpy(blob + used, text.data(), text.size());
    v.offsets_[i] = used;
    used += static_cast<uint32_t>(text.size());
    v.offsets_[i + 1] = used;
    uint64_t slot = XXH3_64bits(text.data(), text.size()) & (s.slots - 1);
    while (v.hash_[slot] >= 0 && v.text(v.hash_[slot]) != text) slot = (slot + 1) & (s.slots - 1);
    if (v.hash_[slot] < 0) v.hash_[slot] = static_cast<int32_t>(i);
    if (!text.empty() && IsSpecial(v.type(static_cast<int32_t>(i)))) {
      lengths.insert(static_cast<uint32_t>(text.size()));
      v.special_start_[static_cast<uint8_t>(text[0])] = true;
    }
  }));
  v.special_lengths_.assign(lengths.rbegin(), lengths.rend());
  return v;
}

int32_t Vocabulary::Find(std::string_view text) const {
  uint64_t slot = XXH3_64bits(text.data(), text.size()) & (slots_ - 1);
  while (hash_[slot] >= 0) {
    if (this->text(hash_[slot]) == text) return hash_[slot];
    slot = (slot + 1) & (slots_ - 1);
  }
  return -1;
}

Vocabulary::Special Vocabulary::NextSpecial(std::string_view text, size_t from,
                                            bool control) const {
  for (size_t i = from; i < text.size(); ++i) {
    if (!special_start_[static_cast<uint8_t>(text[i])]) continue;
    for (const uint32_t n : special_lengths_) {
      if (n > text.size() - i) continue;
      const int32_t token = Find(text.substr(i, n));
      if (token < 0) continue;
      const TokenType t = type(token);
      if (t == TokenType::kUserDefined || (control && IsSpecial(t))) return {token, i, n};
    }
  }
  return {};
}

}  // namespace snug
