#include "text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "text/unicode.h"

namespace snug {
namespace {

constexpr uint32_t kJoinBits = 1 << 20;
// No good hash comes near; a vocabulary that does was made to.
constexpr uint32_t kLongestProbe = 1024;

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
uint32_t* Probe(uint32_t* slots, uint32_t n_slots, uint32_t entries, uint64_t hash, Same same,
                uint32_t* steps = nullptr) {
  const SlotFormat format(entries);
  const uint32_t tag = format.Tag(hash);
  uint32_t i = Home(hash, n_slots), n = 0;
  for (; slots[i] != 0; ++n) {
    if ((slots[i] & ~format.mask) == tag && same((slots[i] & format.mask) - 1)) break;
    if (++i == n_slots) i = 0;
  }
  if (steps != nullptr) *steps = std::max(*steps, n);
  return &slots[i];
}

uint64_t HashText(std::string_view text) {
  TextHash hash;
  for (const char c : text) hash.Add(c);
  return hash.value();
}

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

bool TestBit(const uint64_t* bits, uint64_t i) { return (bits[i / 64] >> i % 64 & 1) != 0; }
void SetBit(uint64_t* bits, uint64_t i) { bits[i / 64] |= uint64_t{1} << i % 64; }

// Ascending in the order in which merges of these scores are made: the highest first.
uint32_t PriorityOf(float score) {
  if (std::isnan(score)) return UINT32_MAX;
  const auto bits = std::bit_cast<uint32_t>(0.0f - score);
  return bits ^ (bits >> 31 != 0 ? 0xFFFFFFFFu : 0x80000000u);
}

}  // namespace

struct Vocabulary::Layout {
  uint64_t prefix_bits = 0;
  uint64_t offsets = 0, lengths = 0, priorities = 0, scores = 0, slots = 0, alias_of = 0, pairs = 0,
           merge_slots = 0, joins = 0, prefixes = 0, types = 0, charsmap = 0, blob = 0, total = 0;
};

Result<Vocabulary::Layout> Vocabulary::Plan(const VocabularyShape& shape) {
  const auto too_large = [](const char* what, uint64_t n, uint64_t limit) {
    return MakeError(Code::kBadFile,
                     fmt::format("the vocabulary has {} {}; 1 to {} are supported", n, what, limit),
                     "the file is damaged: convert or download the model again");
  };
  constexpr uint64_t kMaxBytes = UINT32_MAX;
  if (shape.tokens == 0 || shape.tokens >= kMaxTokens)
    return too_large("tokens", shape.tokens, kMaxTokens - 1);
  if (shape.aliases > shape.tokens) return too_large("aliases", shape.aliases, shape.tokens);
  if (shape.merges >= kMaxTokens) return too_large("merges", shape.merges, kMaxTokens - 1);
  if (shape.text_bytes > kMaxBytes) return too_large("bytes of text", shape.text_bytes, kMaxBytes);
  if (shape.charsmap_bytes > kMaxBytes)
    return too_large("bytes of rules", shape.charsmap_bytes, kMaxBytes);
  Layout l;
  const auto place = [&](uint64_t bytes) {
    const uint64_t at = l.total;
    l.total += (bytes + 7) / 8 * 8;
    return at;
  };
  const uint64_t entries = shape.tokens + shape.aliases;
  if (shape.prefixes) l.prefix_bits = std::max<uint64_t>(1024, std::bit_ceil(16 * entries));
  l.offsets = place(4 * entries);
  l.lengths = place(2 * entries);
  l.priorities = place(shape.priorities ? 4 * shape.tokens : 0);
  l.scores = place(shape.scores ? 8 * shape.tokens : 0);
  l.slots = place(4 * Slots(entries));
  l.alias_of = place(sizeof(Token) * shape.aliases);
  l.pairs = place(sizeof(Pair) * shape.merges);
  l.merge_slots = place(shape.merges != 0 ? 4 * Slots(shape.merges) : 0);
  l.joins = place(shape.joins ? kJoinBits / 8 : 0);
  l.prefixes = place(l.prefix_bits / 8);
  l.types = place(entries);
  l.charsmap = place(shape.charsmap_bytes);
  l.blob = place(shape.text_bytes);
  return l;
}

Result<uint64_t> Vocabulary::PlannedBytes(const VocabularyShape& shape) {
  SNUG_ASSIGN(const Layout l, Plan(shape));
  return Buffer::Reserved(l.total, Pages::kNormal);
}

Result<Vocabulary> Vocabulary::Load(const VocabularySource& source, Ledger& ledger) {
  const VocabularyShape& shape = source.shape();
  SNUG_ASSIGN(const Layout l, Plan(shape));
  Vocabulary v;
  SNUG_ASSIGN(v.buffer_,
              Buffer::Allocate(ledger, Owner::kVocab, l.total, Pages::kNormal, "the vocabulary"));
  const auto at = [&]<class T>(T** p, uint64_t offset) {
    *p = reinterpret_cast<T*>(v.buffer_.data() + offset);
  };
  v.n_tokens_ = static_cast<uint32_t>(shape.tokens);
  v.n_entries_ = static_cast<uint32_t>(shape.tokens + shape.aliases);
  v.n_slots_ = static_cast<uint32_t>(Slots(v.n_entries_));
  v.n_merges_ = static_cast<uint32_t>(shape.merges);
  v.n_merge_slots_ = static_cast<uint32_t>(Slots(shape.merges));
  v.blob_bytes_ = shape.text_bytes;
  v.charsmap_bytes_ = shape.charsmap_bytes;
  v.prefix_mask_ = l.prefix_bits - 1;
  at(&v.offsets_, l.offsets);
  at(&v.lengths_, l.lengths);
  if (shape.priorities) at(&v.priorities_, l.priorities);
  if (shape.scores) at(&v.scores_, l.scores);
  at(&v.slots_, l.slots);
  at(&v.alias_of_, l.alias_of);
  at(&v.merges_, l.pairs);
  at(&v.merge_slots_, l.merge_slots);
  if (shape.joins) at(&v.joins_, l.joins);
  if (shape.prefixes) at(&v.prefixes_, l.prefixes);
  at(&v.types_, l.types);
  at(&v.charsmap_, l.charsmap);
  at(&v.blob_, l.blob);
  std::memset(v.types_, static_cast<int>(TokenType::kNormal), v.n_entries_);
  SNUG_TRY(source.Fill(&v));
  SNUG_TRY(v.Finish());
  return v;
}

WholeFlags Vocabulary::flags(Token id) const {
  const uint8_t t = types_[id];
  return {(t & kLstrip) != 0, (t & kRstrip) != 0, (t & kSingleWord) != 0, (t & kNormalized) != 0};
}

bool Vocabulary::AddToken(Token id, std::string_view text) {
  if (!Contains(id) || lengths_[id] != 0) return false;
  return PutText(static_cast<uint32_t>(id), text);
}

bool Vocabulary::AddAlias(Token id, std::string_view text) {
  const uint32_t entry = n_tokens_ + n_aliases_;
  if (!Contains(id) || entry == n_entries_ || !PutText(entry, text)) return false;
  alias_of_[n_aliases_++] = id;
  types_[entry] = types_[id];
  types_[id] |= kAliased;
  return true;
}

std::string_view Vocabulary::FoundText(Token id) const {
  if ((types_[id] & kAliased) != 0) {
    for (uint32_t i = 0; i < n_aliases_; ++i) {
      if (alias_of_[i] == id) return text(static_cast<Token>(n_tokens_ + i));
    }
  }
  return text(id);
}

bool Vocabulary::PutText(uint32_t entry, std::string_view t) {
  if (t.size() > kMaxText || t.size() > blob_bytes_ - blob_used_ || longest_probe_ > kLongestProbe)
    return false;
  std::copy(t.begin(), t.end(), blob_ + blob_used_);
  offsets_[entry] = static_cast<uint32_t>(blob_used_);
  lengths_[entry] = static_cast<uint16_t>(t.size());
  blob_used_ += t.size();
  if (t.empty()) return true;
  const uint64_t hash = HashText(t);
  uint32_t* slot = Probe(
      slots_, n_slots_, n_entries_, hash,
      [&](uint32_t other) { return text(static_cast<Token>(other)) == t; }, &longest_probe_);
  if (*slot != 0) return false;
  *slot = SlotFormat(n_entries_).Tag(hash) | (entry + 1);
  if (joins_ == nullptr && prefixes_ == nullptr) return longest_probe_ <= kLongestProbe;
  TextHash begin;
  uint32_t last = 0;
  for (size_t p = 0; p < t.size();) {
    const CodePoint c = DecodeUtf8(t, p);
    if (joins_ != nullptr && p != 0) SetBit(joins_, JoinBit(last, c.value));
    for (uint32_t i = 0; i < c.bytes; ++i) begin.Add(t[p + i]);
    if (prefixes_ != nullptr) {
      SetBit(prefixes_, begin.value() & prefix_mask_);
      SetBit(prefixes_, begin.value() >> 32 & prefix_mask_);
    }
    last = c.value;
    p += c.bytes;
  }
  return longest_probe_ <= kLongestProbe;
}

bool Vocabulary::SetType(Token id, TokenType type, const WholeFlags& flags) {
  if (!Contains(id)) return false;
  types_[id] = static_cast<uint8_t>(
      static_cast<uint8_t>(type) | (flags.lstrip ? kLstrip : 0) | (flags.rstrip ? kRstrip : 0) |
      (flags.single_word ? kSingleWord : 0) | (flags.normalized ? kNormalized : 0));
  return true;
}

bool Vocabulary::SetScore(Token id, double score) {
  if (!Contains(id)) return false;
  if (priorities_ != nullptr) priorities_[id] = PriorityOf(static_cast<float>(score));
  if (scores_ != nullptr) scores_[id] = score;
  return true;
}

void Vocabulary::ClearScratch() { std::memset(slots_, 0, size_t{4} * n_slots_); }

bool Vocabulary::AddMerge(uint64_t rank, std::string_view left, std::string_view right) {
  Pair& m = merges_[rank];
  if (longest_probe_ > kLongestProbe) return false;
  std::string joined;
  joined.reserve(left.size() + right.size());
  joined.append(left).append(right);
  m = {Find(left), Find(right), Find(joined)};
  if (m.left < 0 || m.right < 0 || m.result < 0) return false;
  const uint64_t hash = HashPair(static_cast<uint64_t>(m.left), static_cast<uint64_t>(m.right));
  uint32_t* slot = Probe(
      merge_slots_, n_merge_slots_, n_merges_, hash,
      [&](uint32_t other) {
        return merges_[other].left == m.left && merges_[other].right == m.right;
      },
      &longest_probe_);
  if (*slot == 0) *slot = SlotFormat(n_merges_).Tag(hash) | (static_cast<uint32_t>(rank) + 1);
  return true;
}

float Vocabulary::PriorityScore(Token id) const {
  const uint32_t p = priorities_[id];
  return 0.0f - std::bit_cast<float>((p >> 31) != 0 ? p ^ 0x80000000u : ~p);
}

bool Vocabulary::IsWhole(uint32_t entry) const {
  const auto kind = static_cast<TokenType>(types_[entry] & kTypeMask);
  return kind == TokenType::kControl || kind == TokenType::kUserDefined ||
         kind == TokenType::kUnknown;
}

Status Vocabulary::Finish() {
  if (longest_probe_ > kLongestProbe) {
    return MakeError(Code::kBadFile, "the vocabulary's texts were chosen to collide",
                     "download the model from a source you trust");
  }
  for (uint32_t entry = 0; entry < n_tokens_ + n_aliases_; ++entry) {
    const std::string_view t = text(static_cast<Token>(entry));
    if (!IsWhole(entry) || (types_[entry] & kAliased) != 0 || t.empty() || t.size() > 255) continue;
    SetBit(whole_lengths_[static_cast<uint8_t>(t[0])].data(), t.size());
    SetBit(whole_prefixes_.data(), PrefixBit(t, 0));
    any_normalized_ = any_normalized_ || (types_[entry] & kNormalized) != 0;
  }
  return {};
}

Token Vocabulary::Find(std::string_view t) const { return Find(t, HashText(t)); }

Token Vocabulary::Find(std::string_view t, uint64_t hash) const {
  if (t.empty()) return -1;
  const uint32_t* slot = Probe(slots_, n_slots_, n_entries_, hash,
                               [&](uint32_t id) { return text(static_cast<Token>(id)) == t; });
  const uint32_t entry = *slot & SlotFormat(n_entries_).mask;
  return entry <= n_tokens_ ? static_cast<Token>(entry) - 1 : -1;
}

Merge Vocabulary::FindMerge(Token left, Token right) const {
  if (n_merges_ == 0) return {};
  const uint64_t hash = HashPair(static_cast<uint64_t>(left), static_cast<uint64_t>(right));
  const uint32_t* slot = Probe(merge_slots_, n_merge_slots_, n_merges_, hash, [&](uint32_t rank) {
    return merges_[rank].left == left && merges_[rank].right == right;
  });
  if (*slot == 0) return {};
  const uint32_t rank = (*slot & SlotFormat(n_merges_).mask) - 1;
  return {rank, merges_[rank].result};
}

Vocabulary::Whole Vocabulary::MatchWhole(std::string_view t, size_t pos, bool control,
                                         bool normalized) const {
  const auto& lengths = whole_lengths_[static_cast<uint8_t>(t[pos])];
  Whole longest;
  TextHash hash;  // of every beginning, in one pass
  size_t hashed = 0;
  for (size_t word = 0; word < lengths.size(); ++word) {
    for (uint64_t bits = lengths[word]; bits != 0; bits &= bits - 1) {
      const size_t length = 64 * word + static_cast<size_t>(std::countr_zero(bits));
      if (length > t.size() - pos) return longest;
      for (; hashed < length; ++hashed) hash.Add(t[pos + hashed]);
      const std::string_view part = t.substr(pos, length);
      const uint32_t* slot = Probe(slots_, n_slots_, n_entries_, hash.value(),
                                   [&](uint32_t e) { return text(static_cast<Token>(e)) == part; });
      if (*slot == 0) continue;
      const uint32_t entry = (*slot & SlotFormat(n_entries_).mask) - 1;
      if (!IsWhole(entry) || (types_[entry] & kAliased) != 0) continue;
      const bool user =
          static_cast<TokenType>(types_[entry] & kTypeMask) == TokenType::kUserDefined;
      if ((!user && !control) || ((types_[entry] & kNormalized) != 0) != normalized) continue;
      const Token id = entry < n_tokens_ ? static_cast<Token>(entry) : alias_of_[entry - n_tokens_];
      longest = {id, pos, pos + length};
    }
  }
  return longest;
}

Vocabulary::Whole Vocabulary::FindWhole(std::string_view t, size_t from, bool control,
                                        bool normalized) const {
  for (size_t pos = from; pos < t.size(); ++pos)
    if (const Whole whole = WholeAt(t, pos, control, normalized); whole.id >= 0) return whole;
  return {};
}

Vocabulary::Whole Vocabulary::WholeAt(std::string_view t, size_t pos, bool control,
                                      bool normalized) const {
  // A token of this byte only, or one that begins with these two.
  const bool alone = (whole_lengths_[static_cast<uint8_t>(t[pos])][0] & 2) != 0;
  if (!alone && !TestBit(whole_prefixes_.data(), PrefixBit(t, pos))) return {};
  return MatchWhole(t, pos, control, normalized);
}

bool Vocabulary::MayJoin(uint32_t left, uint32_t right) const {
  return TestBit(joins_, JoinBit(left, right));
}

bool Vocabulary::MayBegin(uint64_t hash) const {
  return TestBit(prefixes_, hash & prefix_mask_) && TestBit(prefixes_, hash >> 32 & prefix_mask_);
}

}  // namespace snug
