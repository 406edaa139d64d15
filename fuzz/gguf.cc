// A GGUF file of any bytes: everything that is done with it before a weight is read.
#include "format/gguf.h"

#include "engine/planner.h"
#include "fuzz.h"
#include "text/tokenizer.h"

namespace snug {
namespace {

constexpr uint64_t kVocabularyLimit = 64 * kMiB;

void Plan(const std::string& path, PlaceChoice place) {
  EngineOptions o;
  o.model_path = path;
  o.budget.bytes = 256 * kMiB;
  o.base_bytes = 8 * kMiB;
  o.context = 64;
  o.threads = 1;
  o.place = place;
  const auto plan = PlanFile(o);
  if (!plan.ok()) return;
  uint64_t sum = 0;
  for (const uint64_t bytes : plan->peak) sum += bytes;
  FUZZ_CHECK(sum == plan->peak_total);
  FUZZ_CHECK(plan->fits == (sum <= o.budget.bytes));
  FUZZ_CHECK(!plan->fits || plan->suggestions.empty());
}

void Tokenize(const GgufFile& file) {
  const auto planned = Tokenizer::PlannedBytes(file);
  if (!planned.ok() || *planned > kVocabularyLimit) return;
  Ledger ledger(*planned);
  const auto tokenizer = Tokenizer::Load(file, ledger);
  if (!tokenizer.ok()) return;
  FUZZ_CHECK(ledger.snapshot().total_peak == *planned);
  std::vector<Token> tokens;
  (*tokenizer)
      ->Encode("The caf\xC3\xA9 costs 12.50 \xE2\x82\xAC, isn't it? <|im_end|>\n\n  \xFF", {},
               &tokens);
  for (const Token t : tokens)
    FUZZ_CHECK(t >= -1 && t < static_cast<Token>((*tokenizer)->vocab_size()));
  tokens.insert(tokens.end(), {-1, 0, INT32_MAX, INT32_MIN});
  (*tokenizer)->Decode(tokens, true);
  for (const Token t : tokens) {
    (*tokenizer)->TokenText(t);
    (*tokenizer)->IsControl(t);
  }
}

}  // namespace
}  // namespace snug

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  const fuzz::MemoryFile input(data, size);
  const auto file = GgufFile::Open(input.path());
  if (!file.ok()) return 0;
  file->Describe();
  Tokenize(*file);
  Plan(input.path(), PlaceChoice::kAuto);
  Plan(input.path(), PlaceChoice::kStream);
  return 0;
}
