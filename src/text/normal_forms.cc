#include "text/normal_forms.h"

#include <algorithm>
#include <vector>

namespace snug {
namespace {

// Hangul syllables are composed of jamo by arithmetic (Unicode, section 3.12).
constexpr uint32_t kS = 0xAC00, kL = 0x1100, kV = 0x1161, kT = 0x11A7, kLs = 19, kVs = 21, kTs = 28,
                   kSs = kLs * kVs * kTs;

struct Char {
  uint32_t value;
  uint32_t combining;
};

uint32_t Combining(uint32_t c) {
  if (c < 0x300) return 0;
  const CombiningRun* end = kCombiningRuns + kCombiningRunsCount;
  const CombiningRun* r = std::lower_bound(
      kCombiningRuns, end, c, [](const CombiningRun& a, uint32_t v) { return a.last < v; });
  return r != end && r->first <= c ? r->combining : 0;
}

const CanonicalPair* FindCanonical(uint32_t c) {
  const CanonicalPair* end = kCanonicalPairs + kCanonicalPairsCount;
  const CanonicalPair* p = std::lower_bound(
      kCanonicalPairs, end, c, [](const CanonicalPair& a, uint32_t v) { return a.composed < v; });
  return p != end && p->composed == c ? p : nullptr;
}

const CompatibleText* FindCompatible(uint32_t c) {
  const CompatibleText* end = kCompatibleTexts + kCompatibleTextsCount;
  const CompatibleText* t =
      std::lower_bound(kCompatibleTexts, end, c,
                       [](const CompatibleText& a, uint32_t v) { return a.code_point < v; });
  return t != end && t->code_point == c ? t : nullptr;
}

void Decompose(uint32_t c, bool compatible, std::vector<Char>* out) {
  if (c < 0xA0) return out->push_back({c, 0});
  if (c - kS < kSs) {
    const uint32_t s = c - kS;
    out->push_back({kL + s / (kVs * kTs), 0});
    out->push_back({kV + s % (kVs * kTs) / kTs, 0});
    if (s % kTs != 0) out->push_back({kT + s % kTs, 0});
    return;
  }
  if (compatible) {
    if (const CompatibleText* t = FindCompatible(c)) {
      for (uint32_t i = 0; i < t->length; ++i) {
        const uint32_t part = kCompatiblePool[t->offset + i];
        out->push_back({part, Combining(part)});
      }
      return;
    }
    const uint32_t single = MapByRuns(kCompatibleRuns, kCompatibleRunsCount, c);
    if (single != c) return out->push_back({single, Combining(single)});
  }
  const CanonicalPair* pair = FindCanonical(c);
  if (pair == nullptr) return out->push_back({c, Combining(c)});
  Decompose(pair->first, false, out);
  if (pair->second != 0) Decompose(pair->second, false, out);
}

// The pairs that compose, by their parts.
const std::vector<CanonicalPair>& Compositions() {
  static const std::vector<CanonicalPair> sorted = [] {
    std::vector<CanonicalPair> pairs;
    std::copy_if(kCanonicalPairs, kCanonicalPairs + kCanonicalPairsCount, std::back_inserter(pairs),
                 [](const CanonicalPair& p) { return p.composes; });
    std::sort(pairs.begin(), pairs.end(), [](const CanonicalPair& a, const CanonicalPair& b) {
      return a.first != b.first ? a.first < b.first : a.second < b.second;
    });
    return pairs;
  }();
  return sorted;
}

// The character that two compose, 0 where they do not.
uint32_t Compose(uint32_t first, uint32_t second) {
  if (first - kL < kLs && second - kV < kVs) return kS + ((first - kL) * kVs + second - kV) * kTs;
  if (first - kS < kSs && (first - kS) % kTs == 0 && second - kT - 1 < kTs - 1)
    return first + second - kT;
  const auto& pairs = Compositions();
  const auto p =
      std::lower_bound(pairs.begin(), pairs.end(), std::pair(first, second),
                       [](const CanonicalPair& a, const std::pair<uint32_t, uint32_t>& b) {
                         return a.first != b.first ? a.first < b.first : a.second < b.second;
                       });
  return p != pairs.end() && p->first == first && p->second == second ? p->composed : 0;
}

// Whether c is the second of some pair: it may change what stands before it.
bool MayFollow(uint32_t c) {
  static const std::vector<uint32_t> seconds = [] {
    std::vector<uint32_t> all;
    for (const CanonicalPair& p : Compositions()) all.push_back(p.second);
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
  }();
  return c - kV < kVs || c - kT - 1 < kTs - 1 ||
         std::binary_search(seconds.begin(), seconds.end(), c);
}

// Whether a character stays as it is, whatever stands around it, but for marks that follow it.
bool IsStarter(NormalForm form, uint32_t c) {
  if (c < 0xA0 || (c >= 0x3400 && c < 0xA000)) return true;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  if (c < 0x300 && form == NormalForm::kNfc) return true;  // all compose again
  if (c - kS < kSs) return compose;
  if (Combining(c) != 0 || (compose && MayFollow(c))) return false;
  if (compatible &&
      (FindCompatible(c) != nullptr || MapByRuns(kCompatibleRuns, kCompatibleRunsCount, c) != c))
    return false;
  const CanonicalPair* pair = FindCanonical(c);
  return pair == nullptr || (compose && pair->composes);
}

void ComposeAll(std::vector<Char>* chars) {
  size_t out = 0, starter = SIZE_MAX;
  uint32_t last = 0;  // the combining class of the last character kept after the starter
  for (const Char c : *chars) {
    const bool adjacent = starter != SIZE_MAX && starter + 1 == out;
    const bool blocked = !adjacent && last >= c.combining;
    if (starter != SIZE_MAX && !blocked) {
      if (const uint32_t composed = Compose((*chars)[starter].value, c.value); composed != 0) {
        (*chars)[starter].value = composed;
        continue;
      }
    }
    if (c.combining == 0) starter = out;
    last = c.combining;
    (*chars)[out++] = c;
  }
  chars->resize(out);
}

}  // namespace

void AppendNormalized(NormalForm form, std::string_view text, std::string* out) {
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::vector<Char> run;
  const auto flush = [&] {
    for (size_t i = 0; i < run.size();) {  // canonical ordering
      if (run[i].combining == 0) {
        ++i;
        continue;
      }
      size_t end = i;
      while (end < run.size() && run[end].combining != 0) ++end;
      std::stable_sort(run.begin() + static_cast<ptrdiff_t>(i),
                       run.begin() + static_cast<ptrdiff_t>(end),
                       [](const Char& a, const Char& b) { return a.combining < b.combining; });
      i = end;
    }
    if (compose) ComposeAll(&run);
    for (const Char& c : run) AppendUtf8(c.value, out);
    run.clear();
  };
  size_t plain = 0;  // where text that needs no change began
  const auto flush_plain = [&](size_t end) {
    out->append(text.substr(plain, end - plain));
    plain = end;
  };
  size_t last = 0;  // where the character before began
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text, i);
    const bool invalid = c.value == 0xFFFD && c.bytes == 1;
    if (invalid || IsStarter(form, c.value)) {
      if (!run.empty()) {
        flush();
        plain = i;
      }
      last = i;
      i += c.bytes;
      continue;
    }
    if (run.empty()) {
      // The starter before belongs to the run.
      flush_plain(last < i ? last : i);
      if (last < i) {
        const CodePoint before = DecodeUtf8(text, last);
        if (before.value == 0xFFFD && before.bytes == 1) {
          out->append(text.substr(last, 1));
        } else {
          Decompose(before.value, compatible, &run);
        }
      }
    }
    Decompose(c.value, compatible, &run);
    i += c.bytes;
    last = plain = i;
  }
  flush();
  flush_plain(text.size());
}

}  // namespace snug
