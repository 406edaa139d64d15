// This machine's limits, measured: memory reads, integer products and direct disk reads.
#pragma once

#include <string>

#include "base/ledger.h"
#include "base/status.h"
#include "base/threads.h"

namespace snug {

// Bytes per second that all threads of the pool read from a huge-page buffer of `bytes` (best of
// `rounds` passes).
Result<double> MeasureReads(ThreadPool& pool, Ledger& ledger, uint64_t bytes, int rounds);
// Products of bytes per second that all threads of the pool make together (best of `rounds`), about
// 20 ms each.
double MeasureByteProducts(ThreadPool& pool, int rounds);
// Bytes per second of direct sequential reads of up to `bytes` of a file, from its middle.
Result<double> MeasureDisk(const std::string& path, Ledger& ledger, uint64_t bytes);

}  // namespace snug
