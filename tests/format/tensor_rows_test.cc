// Rows of tensors that lie in their files in every way a source can say, against the obvious.
#include "format/tensor_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "base/ledger.h"
#include "testing.h"

namespace snug {
namespace {

using SourceRun = TensorSource::Run;

struct Stored {
  std::string path = testing::TempDir() + "/data";
  std::vector<float> values;
  explicit Stored(size_t n, size_t skip) {
    for (size_t i = 0; i < n; ++i) values.push_back(std::sin(static_cast<float>(i)));
    std::ofstream out(path, std::ios::binary);
    out << std::string(skip, 'x');
    out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(4 * n));
  }
};

TensorInfo Make(uint64_t rows, uint64_t cols, TensorSource source) {
  TensorInfo t;
  t.name = "t";
  t.dims = {cols, rows, 1, 1};
  t.n_dims = 2;
  t.source = std::make_shared<const TensorSource>(std::move(source));
  return t;
}

// Every range of rows, through ordinary and direct reads, is `at`(row, column) of the values.
template <class At>
void ExpectRows(const Stored& stored, const TensorInfo& t, At at) {
  for (const bool direct : {false, true}) {
    std::vector<File> files;
    files.push_back(File::Open(stored.path, direct).value());
    for (uint64_t first = 0; first < t.rows(); ++first) {
      for (uint64_t rows : {uint64_t{1}, (t.rows() - first) / 2, t.rows() - first}) {
        if (rows == 0) continue;
        const uint64_t bytes = rows * ReadBytesPerRow(t) + kReadOverhead;
        Ledger ledger(64 * kMiB);
        Buffer buffer =
            Buffer::Allocate(ledger, Owner::kIo, bytes + 64, Pages::kNormal, "test").value();
        std::memset(buffer.data() + bytes, 0x5a, 64);
        uint64_t read = 0;
        auto data = ReadRows(files, t, first, rows, buffer.data(), &read);
        ASSERT_TRUE(data.ok()) << data.error().message;
        for (uint64_t i = 0; i < 64; ++i) ASSERT_EQ(buffer.data()[bytes + i], 0x5a);
        std::vector<float> got(rows * t.cols());
        RowsToFloat(t, *data, rows, got.data());
        for (uint64_t r = 0; r < rows; ++r) {
          for (uint64_t c = 0; c < t.cols(); ++c)
            ASSERT_EQ(got[r * t.cols() + c], at(first + r, c)) << first << " " << r << " " << c;
        }
      }
    }
  }
}

TEST(TensorRows, EveryLayout) {
  for (const size_t skip : {0, 12, 5000}) {
    const Stored s(24 * 40, skip);
    const auto v = [&](size_t i) { return s.values[i]; };
    // Plain rows.
    TensorInfo plain = Make(24, 40, {});
    plain.source = nullptr;
    plain.offset = skip;
    ExpectRows(s, plain, [&](uint64_t r, uint64_t c) { return v(r * 40 + c); });
    // Runs in another order than the file's.
    ExpectRows(s, Make(24, 40, {.runs = {{0, skip + 10 * 160, 14, 160, 4}, {0, skip, 10, 160, 4}}}),
               [&](uint64_t r, uint64_t c) { return v((r < 14 ? r + 10 : r - 14) * 40 + c); });
    // Every second row.
    ExpectRows(s, Make(12, 40, {.runs = {{0, skip + 160, 12, 320, 4}}}),
               [&](uint64_t r, uint64_t c) { return v((2 * r + 1) * 40 + c); });
    // Every second column.
    ExpectRows(s, Make(24, 20, {.runs = {{0, skip + 4, 24, 160, 8}}}),
               [&](uint64_t r, uint64_t c) { return v(r * 40 + 2 * c + 1); });
    // Transposed, and every second row of the transpose, in two slices.
    ExpectRows(s, Make(40, 24, {.runs = {{0, skip, 40, 4, 160}}}),
               [&](uint64_t r, uint64_t c) { return v(c * 40 + r); });
    ExpectRows(s, Make(40, 12, {.runs = {{0, skip, 20, 8, 160}, {0, skip + 12 * 160, 20, 8, 160}}}),
               [&](uint64_t r, uint64_t c) { return v((r / 20 * 12 + c) * 40 + r % 20 * 2); });
    // Values.
    ExpectRows(
        s, Make(24, 40, {.value = TensorSource::Value::kPlusOne, .runs = {{0, skip, 24, 160, 4}}}),
        [&](uint64_t r, uint64_t c) { return v(r * 40 + c) + 1.0f; });
    ExpectRows(
        s, Make(24, 40, {.value = TensorSource::Value::kMinusExp, .runs = {{0, skip, 24, 160, 4}}}),
        [&](uint64_t r, uint64_t c) { return -std::exp(v(r * 40 + c)); });
    ExpectRows(s, Make(24, 40, {.values = s.values}),
               [&](uint64_t r, uint64_t c) { return v(r * 40 + c); });
  }
}

TEST(TensorRows, ConversionGivesTheTensorsType) {
  const Stored s(3 * 32, 0);
  TensorInfo t = Make(3, 32, {.runs = {{0, 0, 3, 128, 4}}});
  EXPECT_FALSE(NeedsConversion(t));
  t.type = DType::kBF16;
  EXPECT_TRUE(NeedsConversion(t));
  std::vector<File> files;
  files.push_back(File::Open(s.path).value());
  std::vector<uint8_t> buffer(RowBufferBytes(t));
  std::vector<float> row(32);
  for (uint64_t r = 0; r < 3; ++r) {
    ASSERT_TRUE(ReadRow(files, t, r, buffer, row.data()).ok());
    for (uint64_t c = 0; c < 32; ++c)
      EXPECT_EQ(row[c], BFloatToFloat(FloatToBFloat(s.values[r * 32 + c])));
  }
}

TEST(TensorRows, ATruncatedFileIsAnError) {
  const Stored s(10, 0);
  for (const SourceRun& run :
       {SourceRun{0, 0, 3, 16, 4}, SourceRun{0, 0, 3, 4, 16}, SourceRun{0, 0, 3, 32, 8}}) {
    const TensorInfo t = Make(3, 4, {.runs = {run}});
    std::vector<File> files;
    files.push_back(File::Open(s.path).value());
    std::vector<uint8_t> buffer(3 * ReadBytesPerRow(t) + kReadOverhead);
    auto data = ReadRows(files, t, 0, 3, buffer.data(), nullptr);
    ASSERT_FALSE(data.ok());
    EXPECT_EQ(data.error().code, Code::kBadFile);
  }
}

}  // namespace
}  // namespace snug
