// A model file of any bytes, run for a few tokens: weights may be any numbers.
#include "engine/engine.h"

#include "engine/generate.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  const fuzz::MemoryFile input(data, size);
  EngineOptions o;
  o.model_path = input.path();
  o.budget.bytes = 64 * kMiB;
  o.base_bytes = 1 * kMiB;
  o.context = 16;
  o.chunk = 4;
  o.threads = 1;
  o.lookup = true;
  o.logit_rows = 4;
  if (size % 2 != 0) o.place = PlaceChoice::kStream;
  auto engine = Engine::Open(o);
  if (!engine.ok()) return 0;
  FUZZ_CHECK((*engine)->ledger().snapshot().total_peak <= o.budget.bytes);
  GenerateOptions g;
  g.max_tokens = 4;
  g.ignore_eos = true;
  g.lookup = true;
  g.sampling.repeat_penalty = 1.1f;
  for (const float temperature : {0.0f, 1.0f}) {
    g.sampling.temperature = temperature;
    (*engine)->Clear(0);
    const auto text = Generate(**engine, 0, {0, 1, 0, 1, 0, 1}, g);
    FUZZ_CHECK(!text.ok() || text->tokens.size() == g.max_tokens);
  }
  return 0;
}
