// A tokenizer.json of any bytes: refused, or planned as it is loaded and able to take any text.
#include "fuzz.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  const fuzz::MemoryFile file(data, size);
  const auto planned = Tokenizer::PlannedBytesJson(file.path());
  Ledger ledger(64 * kMiB);
  const auto tokenizer = Tokenizer::LoadJson(file.path(), ledger);
  if (!tokenizer.ok()) {
    FUZZ_CHECK(ledger.snapshot().total == 0);
    return 0;
  }
  FUZZ_CHECK(planned.ok() && ledger.snapshot().total == *planned);
  const std::string_view text =
      "Hello  world's \xE6\xBC\xA2\xE5\xAD\x97 e\xCC\x81 12345\r\n<s> \xFF\xE2\x96\x81 the "
      "aaaaaaaaaa";
  std::vector<Token> tokens;
  (*tokenizer)->Encode(text, {true, true}, &tokens);
  for (const Token t : tokens)
    FUZZ_CHECK(t >= 0 && t < static_cast<Token>((*tokenizer)->vocab_size()));
  (void)(*tokenizer)->Decode(tokens, true);
  return 0;
}
