// A program of another project: it sees the installed headers and links the installed library.
#include "engine/generate.h"

int main() {
  snug::EngineOptions options;
  options.model_path = "/nonexistent.gguf";
  options.budget.bytes = snug::kMiB;
  const auto engine = snug::Engine::Open(options);
  return !engine.ok() && engine.error().code == snug::Code::kBadFile ? 0 : 1;
}
