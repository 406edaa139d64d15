#include "base/nearest.h"

#include <algorithm>
#include <cstdint>

namespace snug {
namespace {

constexpr size_t kMaxWord = 64;  // longer ones are no typing errors, and the work is quadratic

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Optimal string alignment distance: edits that turn a into b, a swap of neighbours being one.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      const bool same = Lower(a[i - 1]) == Lower(b[j - 1]);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && Lower(a[i - 1]) == Lower(b[j - 2]) &&
          Lower(a[i - 2]) == Lower(b[j - 1])) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > kMaxWord) return {};
  std::string best;
  size_t least = SIZE_MAX;
  for (const std::string& c : candidates) {
    if (c.size() > kMaxWord) continue;
    const size_t edits = Distance(word, c);
    const size_t allowed = std::max<size_t>(c.size() < 3 ? 1 : 2, c.size() / 3);
    if (edits <= allowed && edits < least) {
      least = edits;
      best = c;
    }
  }
  return best;
}

}  // namespace snug
