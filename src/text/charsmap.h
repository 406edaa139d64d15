// SentencePiece's precompiled_charsmap: normalization rules as a double-array trie of prefixes
// (Darts-clone; Kanda 2018) with their replacements behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace snug {

class Charsmap {
 public:
  // A view of `bytes` bytes at `data`, aligned to 4: the size of the trie, the trie, the texts.
  // nullopt where the sizes do not agree, and where a text is longer than any of Unicode's. What
  // the trie holds is checked as it is walked.
  static std::optional<Charsmap> Parse(const uint8_t* data, size_t bytes);

  struct Match {
    size_t bytes = 0;  // of the text that is replaced; 0: none
    std::string_view text;
  };
  // The longest, or the shortest, rule for a beginning of `text`.
  Match Find(std::string_view text, bool longest) const;
  size_t longest_text() const { return longest_text_; }  // bytes

 private:
  const uint32_t* units_ = nullptr;
  size_t n_units_ = 0;
  std::string_view texts_;
  size_t longest_text_ = 0;
};

}  // namespace snug
