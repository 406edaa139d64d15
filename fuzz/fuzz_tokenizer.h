// What a tokenizer from a hostile file must still keep.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "fuzz.h"
#include "text/tokenizer.h"

namespace snug::fuzz {

inline void CheckTokenizer(const Result<uint64_t>& planned,
                           const Result<std::unique_ptr<Tokenizer>>& tokenizer,
                           const Ledger& ledger) {
  if (!tokenizer.ok()) {
    FUZZ_CHECK(ledger.snapshot().total == 0);
    return;
  }
  FUZZ_CHECK(planned.ok() && ledger.snapshot().total == *planned);
  const std::string_view text =
      "Hello  world's \xE6\xBC\xA2\xE5\xAD\x97 e\xCC\x81 12345\r\n<s> \xFF\xE2\x96\x81 the "
      "aaaaaaaaaa";
  std::vector<Token> tokens;
  for (const bool special : {true, false}) (*tokenizer)->Encode(text, {special, special}, &tokens);
  for (const Token t : tokens)
    FUZZ_CHECK(t >= 0 && t < static_cast<Token>((*tokenizer)->vocab_size()));
  (void)(*tokenizer)->Decode(tokens, true);
}

}  // namespace snug::fuzz
