#include "engine/calibrate.h"

#include <fmt/format.h>

#include <cassert>

namespace snug {
namespace {

template <class Fn>
void ForMatrices(const WeightLayout& layout, Fn&& fn) {
  const auto matrices_of = [&](const Part& part) {
    for (const PartTensor& t : part.tensors)
      if (t.packed) fn(*t.info);
  };
  for (size_t p = 1; p < layout.first_head; ++p) matrices_of(layout.parts[p]);
  for (const Part& part : layout.experts) matrices_of(part);
}

uint64_t SumBytes(const WeightLayout& layout) {
  uint64_t bytes = 0;
  ForMatrices(layout, [&](const TensorInfo& t) {
    bytes += t.cols() * t.dims[2] * t.dims[3] * sizeof(double);
  });
  return bytes;
}

}  // namespace

uint64_t Calibration::Bytes(const WeightLayout& layout) {
  return Buffer::Reserved(SumBytes(layout), Pages::kNormal);
}

Result<std::unique_ptr<Calibration>> Calibration::Create(const WeightLayout& layout,
                                                         Ledger& ledger) {
  auto c = std::make_unique<Calibration>();
  SNUG_ASSIGN(c->buffer_, Buffer::Allocate(ledger, Owner::kScratch, SumBytes(layout),
                                           Pages::kNormal, "sums of squares"));
  auto* at = c->buffer_.as<double>();
  ForMatrices(layout, [&](const TensorInfo& t) {
    Sums& s = c->sums_[t.name];
    if (s.sums != nullptr) return;
    s.sums = at;
    s.cols = t.cols();
    s.slices = t.dims[2] * t.dims[3];
    s.slice_rows = t.dims[1];
    s.counts.resize(s.slices);
    at += s.cols * s.slices;
  });
  return c;
}

void Calibration::Enter(const Part& part, const uint8_t* base, uint32_t copy) {
  part_ = &part;
  base_ = base;
  expert_ = copy;
}

PackedMatrix Calibration::See(const PackedMatrix& w, const Activations& x) {
  if (part_ == nullptr) return w;
  const SeenTensor seen = FindTensor(*part_, base_, w);
  const auto it = seen.tensor == nullptr ? sums_.end() : sums_.find(seen.tensor->info->name);
  if (it == sums_.end()) return w;
  Sums& s = it->second;
  const uint64_t slice = expert_ + seen.first_row / s.slice_rows;
  assert(slice < s.slices && x.cols == s.cols);
  double* sums = s.sums + slice * s.cols;
  for (size_t r = 0; r < x.tokens; ++r) {
    const float* values = x.x + r * x.stride;
    for (size_t c = 0; c < s.cols; ++c) sums[c] += double{values[c]} * values[c];
  }
  s.counts[slice] += static_cast<double>(x.tokens);
  return w;
}

Status Calibration::Resume(const Imatrix& earlier) {
  for (auto& [name, s] : sums_) {
    const auto it = earlier.entries.find(name);
    if (it == earlier.entries.end() || it->second.counts.size() != s.slices ||
        it->second.sums.size() != s.slices * s.cols) {
      return MakeError(Code::kBadFile,
                       fmt::format("the earlier run's sums of {} are of another model", name),
                       "remove what it left and begin anew");
    }
    for (uint64_t i = 0; i < s.slices * s.cols; ++i) s.sums[i] = it->second.sums[i];
    for (uint64_t i = 0; i < s.slices; ++i) s.counts[i] = it->second.counts[i];
  }
  return {};
}

Imatrix Calibration::Sum(uint32_t chunks, uint32_t chunk_size,
                         std::vector<std::string> datasets) const {
  Imatrix m;
  m.chunks = chunks;
  m.chunk_size = chunk_size;
  m.datasets = std::move(datasets);
  for (const auto& [name, s] : sums_) {
    ImatrixEntry& e = m.entries[name];
    e.sums.assign(s.sums, s.sums + s.slices * s.cols);
    e.counts.assign(s.counts.begin(), s.counts.end());
  }
  return m;
}

}  // namespace snug
