// Scores of given tokens: how well a model predicts them, and how far it is from a reference that
// was kept before.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "format/safetensors.h"

namespace snug {

// What an evaluation's figures depend on.
struct EvaluationKey {
  std::string weights;    // WeightsFingerprint
  std::string cache;      // CacheName
  std::string text;       // a hash of the text or tokens
  std::string reference;  // what the logits were compared with, empty for nothing
  std::string target;     // the processor target whose kernels run
  std::string version;    // the program's
  uint64_t context = 0, prefix = 0, chunks = 0;
};

// What was scored at some positions of the texts: the first token of each has position 0.
struct EvaluationBucket {
  uint64_t first = 0, last = 0;  // positions
  uint64_t tokens = 0;
  double nll = 0;                       // mean, natural logarithm
  std::optional<double> kl_mean, top1;  // with a reference
  // Of what followed prompts: the cache's bytes at the bucket's end, and the time of a token.
  std::optional<uint64_t> kv_held;
  std::optional<double> seconds;
};

struct EvaluationRecord {
  std::string text_name;
  uint64_t tokens = 0;
  double nll = 0;                               // mean, natural logarithm
  std::optional<double> kl_mean, kl_max, top1;  // with a reference
  std::optional<uint64_t> kv_held;              // with a prefix
  std::vector<EvaluationBucket> buckets;        // where asked for; stores do not keep them
};

// Where evaluations that were run are known.
class EvaluationStore {
 public:
  virtual ~EvaluationStore() = default;
  virtual Result<std::optional<EvaluationRecord>> Find(const EvaluationKey& key) const = 0;
  virtual Status Put(const EvaluationKey& key, const EvaluationRecord& record) = 0;
};

std::string HashOfText(std::string_view text);
// A file's size and its first and last MiB, hashed: what is large here differs everywhere.
Result<std::string> HashOfEnds(const std::string& path);
// The cache of a plan by name: MemoryPlan::cache and, where it goes by a file that was measured on
// the model, that file's hash.
Result<std::string> CacheName(const EngineOptions& options, const MemoryPlan& plan);
// The key of what these options make of a text; version, reference, prefix and chunks are the
// caller's to fill in. Opens the model.
Result<EvaluationKey> MakeEvaluationKey(const EngineOptions& options, std::string_view text);

// Scores tokens with an engine, whose first sequence it uses.
class Evaluation {
 public:
  struct Files {
    std::string write;      // where scored logits go, as float32 "logits" [rows, vocab]; or nowhere
    std::string reference;  // such a file, to compare with; or none
  };
  // `rows`: how many logits will be scored. `go_on` may be null; false ends with kCancelled.
  // Errors: kBadFile for a reference of other sizes, kIo.
  static Result<Evaluation> Open(Engine& engine, const Files& files, uint64_t rows,
                                 std::function<bool()> go_on);

  // Has figures of every `tokens` positions told apart. Before anything is scored.
  void SetBuckets(uint32_t tokens) { bucket_ = tokens; }
  // Those scored so far, the last of which may not be complete.
  std::vector<EvaluationBucket> buckets() const;
  uint64_t scored() const { return all_.tokens; }

  // Rows of logits that Chunk computes at once: EngineOptions::logit_rows must allow them.
  static constexpr uint32_t kRows = 64;
  // Runs tokens as one text and scores the predictions of tokens[first_scored ..]. With `all` every
  // row of logits is written and compared, the first tokens' and the last one's too.
  Status Chunk(std::span<const Token> tokens, size_t first_scored, bool all = false);
  // Reads a prefix as a prompt, then scores what follows it token by token: predictions that come
  // from the cache as the prompt left it. The prompt's own last one is not scored, its attention
  // having seen every row.
  Status Continuation(std::span<const Token> tokens, uint32_t prefix);
  // Completes the written file; the record of all that was scored.
  Result<EvaluationRecord> Finish();

 private:
  explicit Evaluation(Engine& engine) : engine_(&engine) {}
  // Sums over some of what was scored.
  struct Tally {
    double nll = 0, kl = 0, kl_max = 0, seconds = 0;
    uint64_t tokens = 0, compared = 0, same_top = 0, steps = 0, kv_held = 0;
  };
  Tally& BucketOf(size_t position);
  // Logits of what comes at `position`, which is `next` where that is known.
  Status Row(std::span<const float> logits, size_t position, std::optional<Token> next);
  void Compare(std::span<const float> logits, std::span<Tally* const> tallies);

  Engine* engine_;
  std::function<bool()> go_on_;
  std::optional<SafetensorsWriter> writer_;
  std::optional<SafetensorsFile> reference_;
  std::vector<float> row_;
  uint64_t offset_ = 0;
  uint32_t bucket_ = 0;  // positions of one; 0: none are told apart
  Tally all_;
  std::vector<Tally> buckets_;
};

}  // namespace snug
