// The merge loop of byte-pair encoding: the best pair of neighbours first, the leftmost among
// equals (Sennrich et al. 2016, arXiv 1508.07909), in O(n log n).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "text/vocabulary.h"

namespace snug {

class PieceMerger {
 public:
  struct Symbol {
    uint32_t start = 0, bytes = 0;  // of the piece; 0 bytes: merged into its left neighbour
    Token id = -1;                  // -1: no token
    int32_t previous = -1, next = -1;
  };

  void Clear() { symbols_.clear(); }
  void Add(uint32_t start, uint32_t bytes, Token id) { symbols_.push_back({start, bytes, id}); }
  size_t size() const { return symbols_.size(); }

  // find(left, right) -> Merge says what two neighbours form, and how early.
  template <class Find>
  void Run(const Find& find) {
    if (symbols_.size() <= kFew) {
      RunFew(find);
    } else {
      RunMany(find);
    }
  }

  // The symbols that are left, in order.
  template <class Fn>
  void ForEach(const Fn& fn) const {
    for (const Symbol& s : symbols_)
      if (s.bytes != 0) fn(s);
  }

 private:
  // Up to so many symbols, looking at every pair costs less than a heap.
  static constexpr size_t kFew = 32;

  template <class Find>
  void RunFew(const Find& find) {
    Merge merges[kFew];  // of each symbol with its right neighbour
    size_t n = symbols_.size();
    Symbol* const s = symbols_.data();
    for (size_t i = 0; i + 1 < n; ++i) merges[i] = find(s[i], s[i + 1]);
    for (;;) {
      size_t best = n;
      uint32_t key = 0;
      for (size_t i = 0; i + 1 < n; ++i) {
        if (merges[i].result < 0 || (best != n && merges[i].key >= key)) continue;
        best = i;
        key = merges[i].key;
      }
      if (best == n) break;
      s[best].bytes += s[best + 1].bytes;
      s[best].id = merges[best].result;
      std::copy(s + best + 2, s + n, s + best + 1);
      std::copy(merges + best + 1, merges + n, merges + best);
      --n;
      merges[best] = best + 1 < n ? find(s[best], s[best + 1]) : Merge{};
      if (best > 0) merges[best - 1] = find(s[best - 1], s[best]);
    }
    symbols_.resize(n);
  }

  struct Candidate {
    uint64_t order = 0;  // the merge's key, then the index of the left symbol
    uint32_t bytes = 0;
    Token result = -1;
    bool operator>(const Candidate& other) const { return order > other.order; }
  };

  template <class Find>
  void RunMany(const Find& find) {
    const auto n = static_cast<int32_t>(symbols_.size());
    for (int32_t i = 0; i < n; ++i) {
      symbols_[static_cast<size_t>(i)].previous = i - 1;
      symbols_[static_cast<size_t>(i)].next = i + 1 < n ? i + 1 : -1;
    }
    queue_.clear();
    for (int32_t i = 0; i + 1 < n; ++i) Offer(i, find);
    std::make_heap(queue_.begin(), queue_.end(), std::greater<>());
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
      const Candidate c = queue_.back();
      queue_.pop_back();
      Symbol& left = symbols_[c.order & UINT32_MAX];
      // A pair that has changed since is longer, or its left half is gone.
      if (left.bytes == 0 || left.next < 0) continue;
      Symbol& right = symbols_[static_cast<size_t>(left.next)];
      if (left.bytes + right.bytes != c.bytes) continue;
      left.bytes = c.bytes;
      left.id = c.result;
      left.next = right.next;
      right.bytes = 0;
      const auto self = static_cast<int32_t>(c.order & UINT32_MAX);
      if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = self;
      if (left.next >= 0 && Offer(self, find)) Push();
      if (left.previous >= 0 && Offer(left.previous, find)) Push();
    }
  }

  template <class Find>
  bool Offer(int32_t i, const Find& find) {
    const Symbol& left = symbols_[static_cast<size_t>(i)];
    const Symbol& right = symbols_[static_cast<size_t>(left.next)];
    const Merge merge = find(left, right);
    if (merge.result < 0) return false;
    queue_.push_back({uint64_t{merge.key} << 32 | static_cast<uint32_t>(i),
                      left.bytes + right.bytes, merge.result});
    return true;
  }
  void Push() { std::push_heap(queue_.begin(), queue_.end(), std::greater<>()); }

  std::vector<Symbol> symbols_;
  std::vector<Candidate> queue_;
};

}  // namespace snug
