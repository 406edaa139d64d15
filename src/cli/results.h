// Evaluations that were run, kept in an SQLite file: the same model, text, cache and lengths are
// not run twice, and `snug plan` tells what is known of the cache that it plans.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/evaluate.h"

struct sqlite3;

namespace snug::cli {

// What is known of a cache: a line of a text with a prefix and a reference.
struct KnownCost {
  std::string text_name;
  uint64_t prefix = 0, tokens = 0;
  double kl_mean = 0, top1 = 0;
  uint64_t kv_held = 0;
};

// Memory: SQLite's page cache, at most 512 KiB. Several processes may use one file.
class Results : public EvaluationStore {
 public:
  // Opens the file, or makes it. Errors: kBadFile for what is no such database or was made by a
  // later version, kIo for what cannot be opened or stays locked for 10 s.
  static Result<Results> Open(const std::string& path);

  Result<std::optional<EvaluationRecord>> Find(const EvaluationKey& key) const override;
  Status Put(const EvaluationKey& key, const EvaluationRecord& record) override;
  // The newest first, at most 20.
  Result<std::vector<KnownCost>> OfCache(const std::string& weights,
                                         const std::string& cache) const;

 private:
  struct Close {
    void operator()(sqlite3* db) const;
  };
  Error Failed(const char* what) const;
  std::unique_ptr<sqlite3, Close> db_;
  std::string path_;
};

}  // namespace snug::cli
