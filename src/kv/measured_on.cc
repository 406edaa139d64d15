#include "kv/measured_on.h"

#include <fmt/format.h>

namespace snug {
namespace {

constexpr size_t kMaxKey = 256, kMaxText = 4096;

}  // namespace

Json MeasuredOnJson(const MeasuredOn& source) {
  return {{"weights", source.weights},
          {"rotary", source.rotary},
          {"text", source.text},
          {"tokens", source.tokens}};
}

bool ReadMeasuredOn(JsonReader& json, MeasuredOn* source) {
  return json.Object(kMaxKey, [&](std::string_view key) {
    if (key != "weights" && key != "rotary") return json.Skip();
    const auto text = json.String(kMaxText);
    if (text) (key == "weights" ? source->weights : source->rotary).assign(*text);
    return text.has_value();
  });
}

std::string RotarySettings(const RopeConfig& r) {
  return fmt::format("dim={} base={} scaling={} factor={} original={} {}", r.dim, r.base,
                     static_cast<int>(r.scaling), r.factor, r.original_context,
                     r.interleaved ? "interleaved" : "halves");
}

Status CheckMeasuredOn(const std::string& path, const MeasuredOn& source,
                       const std::string& weights, const RopeConfig& rope,
                       const std::string& again) {
  if (source.weights != weights) {
    return MakeError(Code::kBadFile,
                     fmt::format("{} was measured on the weights {}; these are {}", path,
                                 source.weights, weights),
                     again, {{"file", path}});
  }
  if (source.rotary != RotarySettings(rope)) {
    return MakeError(Code::kBadFile,
                     fmt::format("{} was measured with rotary settings {}; the model's are {}",
                                 path, source.rotary, RotarySettings(rope)),
                     again, {{"file", path}});
  }
  return {};
}

}  // namespace snug
