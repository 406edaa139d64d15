#include "text/charsmap.h"

#include <algorithm>
#include <cstring>

namespace snug {
namespace {

constexpr size_t kMaxRuleText = 64;  // bytes; U+FDFA becomes 33

uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }
uint32_t Label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Value(uint32_t unit) { return unit & ((1u << 31) - 1); }

}  // namespace

std::optional<Charsmap> Charsmap::Parse(const uint8_t* data, size_t bytes) {
  uint32_t trie = 0;
  if (bytes < sizeof(trie)) return std::nullopt;
  std::memcpy(&trie, data, sizeof(trie));
  if (trie % 4 != 0 || trie == 0 || trie > bytes - sizeof(trie)) return std::nullopt;
  Charsmap map;
  map.units_ = reinterpret_cast<const uint32_t*>(data + sizeof(trie));
  map.n_units_ = trie / 4;
  map.texts_ = {reinterpret_cast<const char*>(data) + sizeof(trie) + trie,
                bytes - sizeof(trie) - trie};
  for (size_t at = 0; at < map.texts_.size();) {
    const size_t end = std::min(map.texts_.find('\0', at), map.texts_.size());
    map.longest_text_ = std::max(map.longest_text_, end - at);
    at = end + 1;
  }
  if (map.longest_text_ > kMaxRuleText) return std::nullopt;
  return map;
}

Charsmap::Match Charsmap::Find(std::string_view text, bool longest) const {
  Match match;
  size_t node = Offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (byte == 0 || node >= n_units_ || Label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= Offset(unit);
    if (!HasLeaf(unit)) continue;
    if (node >= n_units_) break;
    const size_t at = Value(units_[node]);
    if (at >= texts_.size()) break;
    const size_t end = texts_.find('\0', at);
    match = {i + 1, texts_.substr(at, end == texts_.npos ? end : end - at)};
    if (!longest) break;
  }
  return match;
}

}  // namespace snug
