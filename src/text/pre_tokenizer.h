// Pre-tokenizers of byte-level BPE: they cut text into the words within which merges happen. Each
// follows the regular expression its model was trained with, scanned by hand.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace snug {

enum class PreTokenizer : unsigned char {
  kGpt2,
  kQwen2,   // of Qwen 2, 2.5 and 3
  kLlama3,  // as Qwen 2, with up to three digits a word
};
// By the name in tokenizer.ggml.pre.
std::optional<PreTokenizer> FindPreTokenizer(std::string_view name);
inline constexpr std::string_view kPreTokenizerNames = "gpt-2, qwen2, llama-bpe";

// Bytes of the word that starts at text[i], at least 1.
size_t NextWord(PreTokenizer kind, std::string_view text, size_t i);

}  // namespace snug
