#include "engine/kv_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace snug {
namespace {

constexpr uint32_t kLeastRows = kTileTokens;  // a page: fewer rows take as much

// A spec string with one parameter more.
std::string With(const std::string& spec, std::string_view parameter) {
  return fmt::format("{}{}{}", spec, spec.find(':') == std::string::npos ? ':' : ',', parameter);
}

bool Sets(std::string_view spec, std::string_view parameter) {
  const std::string name(parameter.substr(0, parameter.find('=')));
  return spec.find(":" + name + "=") != std::string_view::npos ||
         spec.find("," + name + "=") != std::string_view::npos;
}

// Plans of one model under changing options.
struct Planner {
  const ModelFile& file;
  const Model& model;
  const WeightLayout& layout;
  Result<uint64_t> CacheBytes(EngineOptions options) const {
    options.kv_bytes = 0;
    SNUG_ASSIGN(const MemoryPlan plan, MakePlan(file, model, layout, options));
    return plan.kv_bytes;
  }
};

// The encodings to try, the finest first.
Result<std::vector<EngineOptions>> Encodings(const EngineOptions& options) {
  std::vector<EngineOptions> all;
  const bool any = options.kv_choice == KvChoice::kEncoding;
  if (!any && options.codec == nullptr) return std::vector{options};
  if (any) {
    for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
      all.push_back(options);
      all.back().key_type = all.back().value_type = type;
    }
  }
  for (const CodecEntry* entry : Codecs()) {
    const std::string given = any ? std::string(entry->name) : options.codec->spec();
    if (given.substr(0, given.find(':')) != entry->name) continue;
    for (const std::string_view step : entry->steps) {
      if (Sets(given, step)) continue;
      SNUG_ASSIGN(const auto codec, ParseCodec(With(given, step)));
      all.push_back(options);
      all.back().codec = codec;
    }
  }
  return all.empty() ? std::vector{options} : all;
}

Error TooSmall(const std::string& what, uint64_t needed, uint64_t bytes, const std::string& next) {
  return MakeError(Code::kDoesNotFit,
                   fmt::format("--kv-budget {}: {} takes {}, prompts included", FormatBytes(bytes),
                               what, FormatBytes(needed)),
                   next,
                   {{"kv_budget", std::to_string(bytes)}, {"needed", std::to_string(needed)}});
}

// As many rows as hold.
Result<EngineOptions> FitRows(const Planner& planner, const EngineOptions& options) {
  const uint64_t bytes = options.kv_bytes;
  const std::string spec = options.keep->spec();
  EngineOptions o = options;
  const auto needs = [&](uint32_t rows) -> Result<uint64_t> {
    SNUG_ASSIGN(o.keep, ParseKeep(With(spec, fmt::format("budget={}", rows))));
    return planner.CacheBytes(o);
  };
  if (Sets(spec, "budget")) {
    SNUG_ASSIGN(const uint64_t needed, planner.CacheBytes(o));
    if (needed <= bytes) return o;
    return TooSmall("--kv-keep " + spec, needed, bytes, "leave budget= to be chosen");
  }
  uint32_t low = kLeastRows, high = std::max(low, options.context);
  SNUG_ASSIGN(const uint64_t least, needs(low));
  if (least > bytes) {
    return TooSmall(fmt::format("--kv-keep {} with {} rows", spec, low), least, bytes,
                    "give a larger --kv-budget or a smaller --ctx-size");
  }
  while (low < high) {
    const uint32_t rows = high - (high - low) / 2;
    // More rows than the least may be refused, where the context has room for fewer.
    const Result<uint64_t> needed = needs(rows);
    if (needed.ok() && *needed <= bytes) {
      low = rows;
    } else {
      high = rows - 1;
    }
  }
  SNUG_TRY(needs(low));
  return o;
}

}  // namespace

Result<EngineOptions> FitCache(const ModelFile& file, const Model& model,
                               const WeightLayout& layout, const EngineOptions& options) {
  const Planner planner{file, model, layout};
  if (options.keep != nullptr) return FitRows(planner, options);
  SNUG_ASSIGN(const std::vector<EngineOptions> encodings, Encodings(options));
  uint64_t least = UINT64_MAX;
  std::optional<Error> refused;
  for (const EngineOptions& o : encodings) {
    const Result<uint64_t> needed = planner.CacheBytes(o);
    if (!needed.ok()) {
      refused = needed.error();  // not with this model: another may be
      continue;
    }
    if (*needed <= options.kv_bytes) return o;
    least = std::min(least, *needed);
  }
  if (least == UINT64_MAX && refused) return *refused;
  return TooSmall(
      "the smallest cache of those to choose from", least, options.kv_bytes,
      "give a larger --kv-budget or a smaller --ctx-size, or --kv-keep, which drops rows");
}

}  // namespace snug
