#include "text/vocabulary.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "text/unicode.h"

namespace snug {
namespace {

constexpr char kTokens[] = "tokenizer.ggml.tokens", kTypes[] = "tokenizer.ggml.token_type",
               kScores[] = "tokenizer.ggml.scores", kMerges[] = "tokenizer.ggml.merges";
constexpr uint64_t kMaxText = 64 << 10;
constexpr uint64_t kMaxEntries = 1 << 24;
constexpr uint32_t kJoinBits = 1 << 20;
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

Error Bad(const ModelFile& file, const char* key, const std::string& what) {
  return MakeError(Code::kBadFile, fmt::format("{}: {} {}", file.path(), key, what),
                   "the vocabulary is damaged: convert or download the model again",
                   {{"key", key}});
}

uint64_t Slots(uint64_t entries) { return entries + entries / 2 + 1; }

// Where a hash starts probing among n slots; its low bits stay free for the fingerprint.
uint32_t Home(uint64_t hash, uint32_t n) { return static_cast<uint32_t>((hash >> 32) * n >> 32); }

// A slot's upper bits hold a part of the hash, so that most probes that miss touch nothing else.
struct SlotFormat {
  explicit SlotFormat(uint32_t entries)
      : mask(static_cast<uint32_t>((uint64_t{1} << std::bit_width(entries)) - 1)) {}
  uint32_t Tag(uint64_t hash) const { return static_cast<uint32_t>(hash) & ~mask; }
  uint32_t mask;
};

// The slot that holds an entry for which same(index) is true, or the free slot where it belongs.
template <class Same>
uint32_t* Probe(uint32_t* slots, uint32_t n_slots, uint32_t entries, uint64_t hash, Same same) {
  const SlotFormat format(entries);
  const uint32_t tag = format.Tag(hash);
  uint32_t i = Home(hash, n_slots);
  while (slots[i] != 0) {
    if ((slots[i] & ~format.mask) == tag && same((slots[i] & format.mask) - 1)) break;
    if (++i == n_slots) i = 0;
  }
  return &slots[i];
}

uint64_t HashText(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

uint64_t HashPair(uint64_t left, uint64_t right) {
  uint64_t h = (left << 32 | right) * 0x9E3779B97F4A7C15u;
  h = (h ^ h >> 29) * 0xBF58476D1CE4E5B9u;
  return h ^ h >> 32;
}

uint32_t JoinBit(uint32_t left, uint32_t right) {
  return static_cast<uint32_t>(HashPair(left, right) % kJoinBits);
}

// Of the first two bytes, the second 0 where there is none.
uint32_t PrefixBit(std::string_view text, size_t pos) {
  const uint32_t second = pos + 1 < text.size() ? static_cast<uint8_t>(text[pos + 1]) : 0;
  return uint32_t{static_cast<uint8_t>(text[pos])} << 8 | second;
}

// Ascending in the order in which merges of these scores are made: the highest first.
uint32_t PriorityOf(float score) {
  if (std::isnan(score)) return UINT32_MAX;
  const auto bits = std::bit_cast<uint32_t>(0.0f - score);
  return bits ^ (bits >> 31 != 0 ? 0xFFFFFFFFu : 0x80000000u);
}

}  // namespace

struct Vocabulary::Layout {
  uint64_t tokens = 0, merges = 0, blob_bytes = 0;
  uint64_t offsets = 0, priorities = 0, slots = 0, pairs = 0, merge_slots = 0, joins = 0, types = 0,
           blob = 0, total = 0;
};

Result<Vocabulary::Layout> Vocabulary::Plan(const ModelFile& file, VocabularyKind kind) {
  const auto strings = [&](const char* key) -> Result<const GgufArray*> {
    const GgufArray* array = file.GetArray(key);
    if (array == nullptr || array->element != GgufType::kString)
      return Bad(file, key, "is missing or no array of strings");
    if (array->count == 0 || array->count >= kMaxEntries ||
        array->bytes - 8 * array->count > UINT32_MAX)
      return Bad(file, key,
                 fmt::format("has {} entries of {} bytes; 1 to {} and at most 4 GiB are supported",
                             array->count, array->bytes, kMaxEntries - 1));
    return array;
  };
  const auto numbers = [&](const char* key, uint64_t count, bool needed) -> Status {
    const GgufArray* array = file.GetArray(key);
    if (array == nullptr && !needed) return {};
    if (array == nullptr || array->element == GgufType::kString ||
        array->element == GgufType::kArray)
      return Bad(file, key, "is missing or no array of numbers");
    if (array->count != count)
      return Bad(file, key, fmt::format("has {} entries for {} tokens", array->count, count));
    return {};
  };

  SNUG_ASSIGN(const GgufArray* tokens, strings(kTokens));
  Layout l;
  l.tokens = tokens->count;
  l.blob_bytes = tokens->bytes - 8 * tokens->count;
  SNUG_TRY(numbers(kTypes, l.tokens, false));
  const bool scores = kind == VocabularyKind::kSentencePiece;
  if (scores) {
    SNUG_TRY(numbers(kScores, l.tokens, true));
  } else {
    SNUG_ASSIGN(const GgufArray* merges, strings(kMerges));
    l.merges = merges->count;
  }
  const auto place = [&](uint64_t bytes) {
    const uint64_t at = l.total;
    l.total += (bytes + 7) / 8 * 8;
    return at;
  };
  l.offsets = place(4 * (l.tokens + 1));
  l.priorities = place(scores ? 4 * l.tokens : 0);
  l.slots = place(4 * Slots(l.tokens));
  l.pairs = place(sizeof(Pair) * l.merges);
  l.merge_slots = place(scores ? 0 : 4 * Slots(l.merges));
  l.joins = place(scores ? kJoinBits / 8 : 0);
  l.types = place(l.tokens);
  l.blob = place(l.blob_bytes);
  return l;
}

Result<uint64_t> Vocabulary::PlannedBytes(const ModelFile& file, VocabularyKind kind) {
  SNUG_ASSIGN(const Layout l, Plan(file, kind));
  return Buffer::Reserved(l.total, Pages::kNormal);
}

Result<Vocabulary> Vocabulary::Load(const ModelFile& file, Ledger& ledger, VocabularyKind kind) {
  SNUG_ASSIGN(const Layout l, Plan(file, kind));
  Vocabulary v;
  SNUG_ASSIGN(v.buffer_,
              Buffer::Allocate(ledger, Owner::kVocab, l.total, Pages::kNormal, "the vocabulary"));
  const auto at = [&]<class T>(T** p, uint64_t offset) {
    *p = reinterpret_cast<T*>(v.buffer_.data() + offset);
  };
  v.n_tokens_ = static_cast<uint32_t>(l.tokens);
  v.n_slots_ = static_cast<uint32_t>(Slots(l.tokens));
  v.n_merges_ = static_cast<uint32_t>(l.merges);
  v.n_merge_slots_ = static_cast<uint32_t>(Slots(l.merges));
  at(&v.offsets_, l.offsets);
  at(&v.priorities_, l.priorities);
  at(&v.slots_, l.slots);
  at(&v.merges_, l.pairs);
  at(&v.merge_slots_, l.merge_slots);
  at(&v.joins_, l.joins);
  at(&v.types_, l.types);
  at(&v.blob_, l.blob);
  SNUG_TRY(v.ReadTypes(file));
  SNUG_TRY(v.ReadTokens(file, kind));
  if (kind == VocabularyKind::kSentencePiece) {
    SNUG_TRY(v.ReadScores(file));
  } else {
    SNUG_TRY(v.ReadMerges(file));
  }
  return v;
}

Status Vocabulary::ReadTypes(const ModelFile& file) {
  std::memset(types_, static_cast<int>(TokenType::kNormal), n_tokens_);
  if (file.GetArray(kTypes) == nullptr) return {};
  // The hash's slots are still unused and have room for the file's wider numbers.
  auto* wide = reinterpret_cast<int32_t*>(slots_);
  SNUG_TRY(file.ReadArray(kTypes, wide));
  for (uint32_t i = 0; i < n_tokens_; ++i)
    if (wide[i] >= 1 && wide[i] <= 6) types_[i] = static_cast<uint8_t>(wide[i]);
  std::memset(slots_, 0, size_t{4} * n_slots_);
  return {};
}

Status Vocabulary::ReadTokens(const ModelFile& file, VocabularyKind kind) {
  // ForEachString never passes the array's bytes, so the texts fit the blob whatever their lengths.
  uint64_t end = 0, too_long = 0;
  SNUG_TRY(file.ForEachString(kTokens, [&](uint64_t i, std::string_view text) {
    too_long = std::max<uint64_t>(too_long, text.size());
    if (kind == VocabularyKind::kSentencePiece) {
      if (text.find(' ') != text.npos) types_[i] |= kPlainSpace;
      for (size_t p = 0; p < text.size();) {
        const size_t mark = std::min(text.find(kSpaceMark, p), text.size());
        std::memcpy(blob_ + end, text.data() + p, mark - p);
        end += mark - p;
        p = mark;
        if (p == text.size()) break;
        blob_[end++] = ' ';
        p += kSpaceMark.size();
      }
    } else {
      std::memcpy(blob_ + end, text.data(), text.size());
      end += text.size();
    }
    offsets_[i + 1] = static_cast<uint32_t>(end);
    const auto id = static_cast<Token>(i);
    AddText(id);
    if (kind == VocabularyKind::kSentencePiece) NotePairs(this->text(id));
  }));
  if (too_long > kMaxText)
    return Bad(file, kTokens,
               fmt::format("has a token of {} bytes; at most {}", too_long, kMaxText));
  return {};
}

void Vocabulary::AddText(Token id) {
  const std::string_view t = text(id);
  if (t.empty()) return;
  const uint64_t hash = HashText(t);
  uint32_t* slot = Probe(slots_, n_slots_, n_tokens_, hash,
                         [&](uint32_t other) { return text(static_cast<Token>(other)) == t; });
  if (*slot == 0) *slot = SlotFormat(n_tokens_).Tag(hash) | (static_cast<uint32_t>(id) + 1);
  const TokenType kind = type(id);
  const bool whole =
      kind == TokenType::kControl || kind == TokenType::kUserDefined || kind == TokenType::kUnknown;
  if (!whole || t.size() > 255) return;
  whole_lengths_[static_cast<uint8_t>(t[0])][t.size() / 64] |= uint64_t{1} << t.size() % 64;
  const uint32_t prefix = PrefixBit(t, 0);
  whole_prefixes_[prefix / 64] |= uint64_t{1} << prefix % 64;
}

void Vocabulary::NotePairs(std::string_view t) {
  uint32_t last = 0;
  for (size_t p = 0; p < t.size();) {
    const CodePoint c = DecodeUtf8(t, p);
    if (p != 0) {
      const uint32_t bit = JoinBit(last, c.value);
      joins_[bit / 64] |= uint64_t{1} << bit % 64;
    }
    last = c.value;
    p += c.bytes;
  }
}

Status Vocabulary::ReadScores(const ModelFile& file) {
  auto* scores = reinterpret_cast<float*>(priorities_);
  SNUG_TRY(file.ReadArray(kScores, scores));
  for (uint32_t i = 0; i < n_tokens_; ++i) {
    float score;
    std::memcpy(&score, &priorities_[i], sizeof(score));
    priorities_[i] = PriorityOf(score);
  }
  return {};
}

Status Vocabulary::ReadMerges(const ModelFile& file) {
  std::string joined;
  uint64_t too_long = 0;
  int64_t malformed = -1;
  SNUG_TRY(file.ForEachString(kMerges, [&](uint64_t rank, std::string_view line) {
    merges_[rank] = {-1, -1, -1};
    too_long = std::max<uint64_t>(too_long, line.size());
    const size_t space = line.find(' ', 1);
    if (space == line.npos || space + 1 == line.size()) {
      if (malformed < 0) malformed = static_cast<int64_t>(rank);
      return;
    }
    const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
    joined.assign(left).append(right);
    merges_[rank] = {Find(left), Find(right), Find(joined)};
    const Pair& m = merges_[rank];
    // A merge of what is no token, or into none, can never take part.
    if (m.left < 0 || m.right < 0 || m.result < 0) return;
    const uint64_t hash = HashPair(static_cast<uint64_t>(m.left), static_cast<uint64_t>(m.right));
    uint32_t* slot = Probe(merge_slots_, n_merge_slots_, n_merges_, hash, [&](uint32_t other) {
      return merges_[other].left == m.left && merges_[other].right == m.right;
    });
    if (*slot == 0) *slot = SlotFormat(n_merges_).Tag(hash) | (static_cast<uint32_t>(rank) + 1);
  }));
  if (malformed >= 0)
    return Bad(file, kMerges, fmt::format("entry {} is not two texts and a space", malformed));
  if (too_long > kMaxText)
    return Bad(file, kMerges,
               fmt::format("has an entry of {} bytes; at most {}", too_long, kMaxText));
  return {};
}

Token Vocabulary::Find(std::string_view t) const {
  if (t.empty()) return -1;
  const uint32_t* slot = Probe(slots_, n_slots_, n_tokens_, HashText(t),
                               [&](uint32_t id) { return text(static_cast<Token>(id)) == t; });
  return static_cast<Token>(*slot & SlotFormat(n_tokens_).mask) - 1;
}

Merge Vocabulary::FindMerge(Token left, Token right) const {
  const uint64_t hash = HashPair(static_cast<uint64_t>(left), static_cast<uint64_t>(right));
  const uint32_t* slot = Probe(merge_slots_, n_merge_slots_, n_merges_, hash, [&](uint32_t rank) {
    return merges_[rank].left == left && merges_[rank].right == right;
  });
  if (*slot == 0) return {};
  const uint32_t rank = (*slot & SlotFormat(n_merges_).mask) - 1;
  return {rank, merges_[rank].result};
}

Token Vocabulary::MatchWhole(std::string_view t, size_t pos, bool user_defined,
                             bool control) const {
  const auto& lengths = whole_lengths_[static_cast<uint8_t>(t[pos])];
  const uint32_t prefix = PrefixBit(t, pos);
  const bool alone = (lengths[0] & 2) != 0;  // a token of this byte only
  if (!alone && (whole_prefixes_[prefix / 64] >> prefix % 64 & 1) == 0) return -1;
  for (size_t word = lengths.size(); word-- > 0;) {
    for (uint64_t bits = lengths[word]; bits != 0;) {
      const auto bit = static_cast<size_t>(63 - std::countl_zero(bits));
      bits &= ~(uint64_t{1} << bit);
      const size_t length = 64 * word + bit;
      if (length > t.size() - pos) continue;
      const Token id = Find(t.substr(pos, length));
      if (id < 0) continue;
      const TokenType kind = type(id);
      if (user_defined && kind == TokenType::kUserDefined) return id;
      if (control && (kind == TokenType::kControl || kind == TokenType::kUnknown)) return id;
    }
  }
  return -1;
}

bool Vocabulary::MayJoin(uint32_t left, uint32_t right) const {
  const uint32_t bit = JoinBit(left, right);
  return (joins_[bit / 64] >> bit % 64 & 1) != 0;
}

}  // namespace snug
