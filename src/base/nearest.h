// The known word nearest to a mistyped one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace snug {

// The candidate with the fewest edits from `word` (insertions, deletions, exchanges, and swaps of
// neighbours; case apart), or empty where none is near: more than a third of its letters, and more
// than two.
std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace snug
