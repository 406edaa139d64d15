// Chat templates: any bytes are a template, and its rendering ends within the limits. The first
// line may be the input's JSON.
#include "text/chat_template.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  snug::Json input = {
      {"messages",
       {{{"role", "system"}, {"content", "Be brief."}},
        {{"role", "user"}, {"content", "H\xc3\xa9llo \xf0\x9f\xa6\x99"}},
        {{"role", "assistant"},
         {"content", nullptr},
         {"tool_calls", {{{"function", {{"name", "f"}, {"arguments", {{"a", 1.5}}}}}}}}}}},
      {"bos_token", "<s>"},
      {"now", "2026-01-02 03:04:05"}};
  if (!text.empty() && text[0] == '{') {
    const size_t end = text.find('\n');
    const auto given = snug::ParseJson(text.substr(0, end), "the first line");
    if (given.ok() && given->is_object() && end != std::string_view::npos) {
      input = *given;
      text.remove_prefix(end + 1);
    }
  }
  snug::TemplateLimits limits;
  limits.steps = 200'000;
  limits.output_bytes = 1 << 20;
  limits.memory_bytes = 8 << 20;
  const auto t = snug::ChatTemplate::Parse(text, limits);
  if (!t.ok()) {
    FUZZ_CHECK(t.error().code == snug::Code::kBadInput);
    return 0;
  }
  const auto rendered = t->Render(input);
  if (rendered.ok()) {
    FUZZ_CHECK(rendered->size() <= limits.output_bytes);
  } else {
    FUZZ_CHECK(rendered.error().code == snug::Code::kBadInput);
  }
  return 0;
}
