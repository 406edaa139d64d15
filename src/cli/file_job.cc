#include "cli/file_job.h"

#include <fmt/format.h>

#include "text/gguf_vocabulary_write.h"
#include "text/tokenizer.h"

namespace snug::cli {
namespace {

// What the heap of a job grows by beside its buffers: names and places of tensors.
constexpr uint64_t kBaseGrowth = 6 * kMiB;
// What a vocabulary takes as texts, doubling as they grow, in vocabularies of its own size.
constexpr uint64_t kTextsPerVocabulary = 4;

}  // namespace

void FileJobArgs::Add(Verb verb) {
  verb.Add("--memory", memory,
           "the budget: 600MiB, 1.5GiB, 70%, or auto (what the machine has free)")
      .Environment("SNUG_MEMORY")
      .Default();
  verb.Add("-t,--threads", threads, "threads (0: all usable CPUs)").Default();
}

Result<FileJob> FileJob::Start(const FileJobArgs& args) {
  FileJob job;
  if (args.threads < 0 || args.threads > 1024) {
    return MakeError(Code::kUsage, fmt::format("-t {} is outside 0 .. 1024", args.threads), {},
                     {{"option", "--threads"}, {"value", std::to_string(args.threads)}});
  }
  SNUG_ASSIGN(job.budget_, ParseBudget(args.memory, MemoryBounds()));
  job.ledger_ = std::make_unique<Ledger>(job.budget_.bytes);
  SNUG_TRY(job.Hold(ReadProcessMemory().rss + kBaseGrowth, Owner::kBase, "code, stacks and heap"));
  job.pool_ = std::make_unique<ThreadPool>(args.threads > 0 ? args.threads : UsableCpus().cpus);
  job.pool_->set_wait(Wait::kSleep);
  return job;
}

Status FileJob::Hold(uint64_t bytes, Owner owner, std::string_view what) {
  SNUG_ASSIGN(Reservation r, ledger_->Reserve(owner, bytes, what));
  held_.push_back(std::move(r));
  return {};
}

std::function<Status(GgufHeader&)> FileJob::TokenizerOf(const ModelFile& file) {
  if (!file.tokenizer_json() && !file.tokenizer_model()) return nullptr;
  return [this, &file](GgufHeader& header) -> Status {
    // Lists of tokens and merges, and their place in the header, which is copied once.
    SNUG_ASSIGN(const uint64_t vocabulary, Tokenizer::PlannedBytes(file));
    SNUG_TRY(Hold(kTextsPerVocabulary * vocabulary, Owner::kVocab, "the tokenizer's lists"));
    const TensorInfo* embedding = file.Find("token_embd.weight");
    return AddTokenizerKeys(file, embedding == nullptr ? 0 : embedding->rows(), *ledger_, &header);
  };
}

Result<Reservation> FileJob::ReserveTokenizerFiles(const ModelFile& file) {
  SNUG_ASSIGN(const uint64_t vocabulary, Tokenizer::PlannedBytes(file));
  return ledger_->Reserve(Owner::kVocab, kTextsPerVocabulary * vocabulary, "the tokenizer's files");
}

Json FileJob::MemoryJson() const {
  return {{"budget", budget_.bytes},
          {"ledger_peak", ledger_->snapshot().total_peak},
          {"rss_peak", ReadProcessMemory().peak_rss}};
}

uint64_t MetadataBytes(const ModelFile& file) {
  uint64_t bytes = 0;
  for (const std::string& key : file.keys()) {
    const ModelFile::Value& v = *file.GetValue(key);
    bytes += key.size() + v.text.size() + v.array.bytes + 32;
  }
  for (const TensorInfo& t : file.tensors()) bytes += t.name.size() + 64;
  // A string that grows doubles; the finished header is a second copy.
  return 3 * bytes;
}

}  // namespace snug::cli
