// A tokenizer.model of any bytes: refused, or planned as it is loaded and able to take any text.
#include "fuzz.h"
#include "fuzz_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  const fuzz::MemoryFile file(data, size);
  const auto planned = Tokenizer::PlannedBytesSentencePiece(file.path());
  Ledger ledger(64 * kMiB);
  fuzz::CheckTokenizer(planned, Tokenizer::LoadSentencePiece(file.path(), ledger), ledger);
  return 0;
}
