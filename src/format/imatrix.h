// Importance matrices: for each matrix of a model the mean square of every column of its inputs
// over some text, as llama.cpp's imatrix files keep them (GGUF with general.type "imatrix":
// NAME.in_sum2 [cols, experts] and NAME.counts [1, experts]).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "format/gguf_convert.h"

namespace snug {

struct ImatrixEntry {
  std::vector<float> sums;    // [experts, cols] of squares
  std::vector<float> counts;  // [experts] rows that were summed
};

struct Imatrix {
  std::map<std::string, ImatrixEntry, std::less<>> entries;  // by tensor name
  std::vector<std::string> datasets;
  uint32_t chunks = 0, chunk_size = 0;  // tokens of text: so many chunks of so many
};

// Errors: kBadFile for what is no importance matrix, or an impossible one; kIo.
Result<Imatrix> ReadImatrix(const std::string& path);
// Written beside, synced and renamed.
Status WriteImatrix(const std::string& path, const Imatrix& imatrix);
// Means of squares; experts that no token chose have zeros.
Importance ImportanceOf(const Imatrix& imatrix);
uint64_t BytesOf(const Imatrix& imatrix);

}  // namespace snug
