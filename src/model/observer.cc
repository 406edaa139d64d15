#include "model/observer.h"

namespace snug {

SeenTensor FindTensor(const Part& part, const uint8_t* base, const PackedMatrix& w) {
  if (w.data < base || w.data >= base + part.bytes) return {};
  const auto offset = static_cast<size_t>(w.data - base);
  for (const PartTensor& t : part.tensors) {
    if (!t.packed || offset < t.offset || offset >= t.offset + t.bytes) continue;
    return {&t, t.first_row + (offset - t.offset) / PanelBytes(w.type, w.cols) * kPanelRows};
  }
  return {};
}

}  // namespace snug
