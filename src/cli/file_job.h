// What verbs that write model files share: a budget without an engine, its ledger and threads.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/ledger.h"
#include "base/machine.h"
#include "base/threads.h"
#include "cli/verb.h"
#include "format/gguf_write.h"
#include "format/model_file.h"

namespace snug::cli {

struct FileJobArgs {
  std::string memory = "auto";
  int threads = 0;
  void Add(Verb verb);
};

class FileJob {
 public:
  // Errors: kUsage, kDoesNotFit when the program alone is larger than the budget.
  static Result<FileJob> Start(const FileJobArgs& args);
  // Reserves for as long as the job lasts.
  Status Hold(uint64_t bytes, Owner owner, std::string_view what);
  // What adds a folder's tokenizer to a header of GGUF; null for a file that has its own.
  std::function<Status(GgufHeader&)> TokenizerOf(const ModelFile& file);
  // For the files that a GGUF file's tokenizer becomes.
  Result<Reservation> ReserveTokenizerFiles(const ModelFile& file);
  Ledger& ledger() { return *ledger_; }
  ThreadPool& pool() { return *pool_; }
  const Budget& budget() const { return budget_; }
  // Budget, ledger and the system's peak.
  Json MemoryJson() const;

 private:
  Budget budget_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<Reservation> held_;
};

// What writing a model's metadata anew takes: its arrays, in the header and in what is written.
uint64_t MetadataBytes(const ModelFile& file);

}  // namespace snug::cli
