// Claims about ways to hold the cache, as data: what a source says, which setting is to show it
// here, and by what rule. All are measured in one way: after a prompt of each text the tokens that
// follow it are taken as they are, and their logits compared with those of the dense f16 cache.
#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/evaluate.h"
#include "repro/repro.h"

namespace snug {

// What `snug eval` takes as --kv, --kv-keep and --kv-read; empty: the dense cache, all rows.
struct CacheSetting {
  std::string_view kv, keep, read;
  std::string Name() const;  // "--kv kivi:bits=2", or "dense"
};

enum class CacheRule : uint8_t {
  kCloserThanOthers,  // KL below that of all others on four texts of five, or more
  kKlAtMost,          // mean KL over texts
  kBytesAtMost,       // held after the text, as a share of the dense cache's
};

struct CacheClaim {
  std::string_view claim;  // in our words
  CacheSetting setting;
  CacheRule rule = CacheRule::kKlAtMost;
  double bound = 0;  // of kKlAtMost and kBytesAtMost
  std::array<CacheSetting, 2> others = {};
  size_t other_count = 0;
};

// One text after another; null where the setting could not be run, with the reason.
struct CacheFigures {
  std::vector<EvaluationRecord> texts;
  std::string refused;
};
using CacheFigureMap = std::map<std::string, CacheFigures>;  // by CacheSetting::Name

// Measures dense and all settings over options.texts, or takes what options.store knows. Logits of
// one text's dense run lie in options.folder meanwhile. Errors: those of the dense cache, of files,
// and kCancelled; what another setting is refused for becomes its figure.
Result<CacheFigureMap> MeasureCaches(const std::vector<CacheSetting>& settings,
                                     const ReproOptions& options);
// The report of one method's claims.
ReproReport JudgeCaches(const Repro& repro, const CacheFigureMap& figures,
                        const ReproOptions& options);

}  // namespace snug
