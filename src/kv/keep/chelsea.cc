// Chelsea (Hu et al. 2025, arXiv 2506.11418): rows are not dropped but merged. Within chunks of
// neighbours each second row looks for the row among the others whose key points most nearly the
// same way; the nearest pairs become clusters, of which the means of keys and of values stay, and a
// row's scores are raised by the logarithm of the tokens that it stands for. The first and the last
// tokens stay as they are.
#include <fmt/format.h>

#include "kv/keep/registry.h"
#include "kv/keep/select.h"

namespace snug {
namespace {

constexpr size_t kMostChunk = 256;

constexpr SpecParameter kParameters[] = {
    BudgetParameter("0.2"),
    {"least", "rows that stay at least, where budget is a share", "128", 1, 1e9, true},
    {"chunk", "neighbours among which rows are merged", "64", 2, kMostChunk, true},
    {"sinks", "first tokens that stay as they are", "4", 0, 1e6, true},
    {"recent", "last tokens that stay as they are", "64", 0, 1e6, true},
    {"slack", "rows beyond the budget until an answer's are merged; 0: as many as a chunk", "0", 0,
     1e6, true},
};

// Rows [first, last) of a head.
struct Range {
  uint32_t first = 0, last = 0;
  uint32_t size() const { return last - first; }
};

class Chelsea final : public KeepMethod, public Merging {
 public:
  explicit Chelsea(std::span<const double> values)
      : budget_(ReadBudget(values)),
        chunk_(static_cast<uint32_t>(values[2])),
        sinks_(static_cast<uint32_t>(values[3])),
        recent_(static_cast<uint32_t>(values[4])),
        slack_(values[5] == 0 ? chunk_ : static_cast<uint32_t>(values[5])) {}

  uint32_t RowsAfterPrompt(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens);
  }
  uint32_t RowsAtMost(uint32_t tokens, KeepPlace) const override {
    return budget_.Rows(tokens) + slack_;
  }
  const Merging* merging() const override { return this; }

  // Keys and values of a chunk, and its keys at length 1.
  size_t Floats(uint32_t head_dim) const override { return size_t{3} * chunk_ * head_dim; }

  void EndPrompt(MergeRows& head, uint32_t head_dim, uint32_t rows, uint32_t stay,
                 std::span<float> room) const override {
    Shrink(head, head_dim, {sinks_, rows - recent_}, rows, rows - stay, room);
  }

  // Of the tokens that left the recent ones since rows were merged last, one round; then of the
  // oldest chunks, as many as it takes.
  uint32_t EndToken(MergeRows& head, uint32_t head_dim, uint32_t rows,
                    std::span<float> room) const override {
    uint32_t left = slack_ + 1;
    const uint32_t stay = rows - left;
    const uint32_t fresh = std::max(sinks_, stay - recent_);
    const uint32_t first = Capacity(rows - recent_ - fresh);
    Shrink(head, head_dim, {fresh, rows - recent_}, rows, std::min(left, first), room);
    left -= std::min(left, first);
    rows = stay + left;
    if (left == 0) return stay;
    const uint32_t chunks = (left + chunk_ / 2 - 1) / (chunk_ / 2);
    const uint32_t end = std::min<uint64_t>(rows - recent_, sinks_ + uint64_t{chunks} * chunk_);
    Shrink(head, head_dim, {sinks_, end}, rows, left, room);
    return stay;
  }

 private:
  // Rows by which one round can shrink so many.
  uint32_t Capacity(uint32_t rows) const {
    return rows / chunk_ * (chunk_ / 2) + rows % chunk_ / 2;
  }

  // Rounds that make the range smaller by `count` rows, fewer than it has; the rows after it, up to
  // `rows`, follow. Each round shrinks all chunks alike: by half, the last one by what is left.
  void Shrink(MergeRows& head, uint32_t head_dim, Range range, uint32_t rows, uint32_t count,
              std::span<float> room) const {
    const uint32_t end = range.last;
    while (count > 0) {
      const uint32_t capacity = Capacity(range.size());
      const uint32_t now = std::min(count, capacity);
      uint32_t to = range.first;
      uint64_t before = 0;  // capacity of the chunks before
      for (uint32_t at = range.first; at < range.last; at += chunk_) {
        const Range chunk{at, std::min(range.last, at + chunk_)};
        const uint64_t after = before + chunk.size() / 2;
        const auto merged = static_cast<uint32_t>(after * now / capacity - before * now / capacity);
        to = MergeChunk(head, head_dim, chunk, merged, to, room);
        before = after;
      }
      range.last = to;
      count -= now;
    }
    for (uint32_t r = end; r < rows && range.last != end; ++r) {
      head.Move(r, range.last + (r - end));
    }
  }

  // Merges `count` of a chunk's rows into others; what is left goes to rows [to, ...), the end of
  // which is returned.
  uint32_t MergeChunk(MergeRows& head, uint32_t dim, Range chunk, uint32_t count, uint32_t to,
                      std::span<float> room) const {
    const uint32_t size = chunk.size();
    if (count == 0) {
      for (uint32_t i = 0; i < size && chunk.first != to; ++i) head.Move(chunk.first + i, to + i);
      return to + size;
    }
    std::array<uint32_t, kMostChunk> into, members, total;
    float* keys = room.data();
    float* values = keys + size_t{size} * dim;
    for (uint32_t i = 0; i < size; ++i) {
      into[i] = i;
      head.Load(chunk.first + i, keys + i * dim, values + i * dim);
      members[i] = total[i] = head.members(chunk.first + i);
    }
    Match(keys, dim, size, count, values + size_t{size} * dim, into.data());
    for (uint32_t i = 0; i < size; ++i) {
      const uint32_t c = into[i];
      if (c == i) continue;
      for (float* rows : {keys, values}) {
        float* sum = rows + c * dim;
        const float own = total[c] == members[c] ? static_cast<float>(members[c]) : 1;
        const auto added = static_cast<float>(members[i]);
        for (uint32_t d = 0; d < dim; ++d) sum[d] = own * sum[d] + added * rows[i * dim + d];
      }
      total[c] += members[i];
    }
    for (uint32_t i = 0; i < size; ++i) {
      if (into[i] != i) continue;
      if (chunk.first + i != to) head.Move(chunk.first + i, to);
      if (total[i] != members[i]) {
        for (float* rows : {keys, values}) {
          for (uint32_t d = 0; d < dim; ++d) rows[i * dim + d] /= static_cast<float>(total[i]);
        }
        head.Store(to, keys + i * dim, values + i * dim);
        head.set_members(to, total[i]);
      }
      ++to;
    }
    return to;
  }

  // Of `size` keys each even one seeks the odd one at the least angle to it, of equal ones the
  // first; the `count` nearest, of equal ones the first, are told to go into theirs.
  static void Match(const float* keys, uint32_t dim, uint32_t size, uint32_t count, float* units,
                    uint32_t* into) {
    const uint32_t odd = size / 2, even = size - odd;
    float* columns = units + size_t{even} * dim;  // [dim, odd], for sums side by side
    for (uint32_t i = 0; i < size; ++i) {
      const float* key = keys + i * dim;
      float norm = 0;
      for (uint32_t d = 0; d < dim; ++d) norm += key[d] * key[d];
      // A key without direction is at right angles to all.
      const float inverse = norm > 0 && std::isfinite(norm) ? 1 / std::sqrt(norm) : 0;
      for (uint32_t d = 0; d < dim; ++d) {
        const float x = inverse == 0 ? 0 : key[d] * inverse;
        (i % 2 == 0 ? units[i / 2 * dim + d] : columns[d * odd + i / 2]) = x;
      }
    }
    std::array<float, kMostChunk / 2> cosine;
    std::array<uint32_t, kMostChunk / 2> nearest, order;
    for (uint32_t e = 0; e < even; ++e) {
      std::array<float, kMostChunk / 2> dots{};
      for (uint32_t d = 0; d < dim; ++d) {
        const float x = units[e * dim + d];
        for (uint32_t o = 0; o < odd; ++o) dots[o] += x * columns[d * odd + o];
      }
      nearest[e] =
          static_cast<uint32_t>(std::max_element(dots.begin(), dots.begin() + odd) - dots.begin());
      cosine[e] = dots[nearest[e]];
      order[e] = e;
    }
    std::nth_element(order.begin(), order.begin() + count, order.begin() + even,
                     [&](uint32_t a, uint32_t b) {
                       return cosine[a] != cosine[b] ? cosine[a] > cosine[b] : a < b;
                     });
    for (uint32_t i = 0; i < count; ++i) into[2 * order[i]] = 2 * nearest[order[i]] + 1;
  }

  const KeepBudget budget_;
  const uint32_t chunk_, sinks_, recent_, slack_;
};

// Rows that stay exact leave room for one at least that stands for all others.
Result<std::shared_ptr<KeepMethod>> MakeChelsea(std::span<const double> values) {
  const bool share = values[0] <= 1;
  const double rows = share ? values[1] : values[0], exact = values[3] + values[4];
  if (rows < exact + 1) {
    return MakeError(
        Code::kUsage,
        fmt::format("--kv-keep chelsea: {}={} leaves no row beside sinks={} and recent={}, which "
                    "stay as they are",
                    share ? "least" : "budget", rows, values[3], values[4]),
        fmt::format("{}={} or more", share ? "least" : "budget", exact + 1),
        {{"option", "--kv-keep"}, {"parameter", share ? "least" : "budget"}});
  }
  return MakeMethod<KeepMethod, Chelsea>(values);
}

}  // namespace

const KeepEntry kKeepChelsea = {
    "chelsea",
    "Hu et al. 2025, arXiv 2506.11418",
    "the first tokens, the last ones, and means of rows whose keys point nearly the same way",
    "nothing; keys and values as they are stored",
    kParameters,
    MakeChelsea,
};

}  // namespace snug
