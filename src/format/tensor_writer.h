// Writes a file of a header and tensors, resumably and within the ledger: what GGUF and safetensors
// have in common.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/threads.h"
#include "format/model_file.h"
#include "format/reencode.h"

namespace snug {

// A tensor's bytes at `offset` from the end of the header; what is between tensors becomes zeros.
struct PlacedTensor {
  Reencoding work;
  uint64_t offset = 0, bytes = 0;
};

struct WriteProgress {
  uint64_t done = 0, total = 0;  // bytes of the output
  uint64_t resumed = 0;          // of them, from an earlier run
};

// Writes `header`, then `tensors` of `file`, which stand in ascending order, and zeros up to
// `data_bytes`. Goes on where an earlier run with the same sources, header and `options` was
// interrupted. `progress` and `cancel` may be null. Errors: kIo, kDoesNotFit, kCancelled.
Status WriteTensors(const ModelFile& file, const std::string& header,
                    const std::vector<PlacedTensor>& tensors, uint64_t data_bytes,
                    const std::string& path, const std::string& options, Ledger& ledger,
                    ThreadPool& pool, const std::function<void(const WriteProgress&)>& progress,
                    const std::atomic<bool>* cancel);

}  // namespace snug
