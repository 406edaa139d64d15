#include "format/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace snug {
namespace {

constexpr uint64_t kBuffer = 64 << 10;

template <class T>
double Widen(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return static_cast<double>(v);
}

double ElementAt(GgufType type, const uint8_t* p) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kBool:
      return Widen<uint8_t>(p);
    case GgufType::kI8:
      return Widen<int8_t>(p);
    case GgufType::kU16:
      return Widen<uint16_t>(p);
    case GgufType::kI16:
      return Widen<int16_t>(p);
    case GgufType::kU32:
      return Widen<uint32_t>(p);
    case GgufType::kI32:
      return Widen<int32_t>(p);
    case GgufType::kF32:
      return Widen<float>(p);
    case GgufType::kU64:
      return Widen<uint64_t>(p);
    case GgufType::kI64:
      return Widen<int64_t>(p);
    default:
      return Widen<double>(p);
  }
}

template <class T>
T Narrow(double v) {
  if constexpr (std::is_floating_point_v<T>) return static_cast<T>(v);
  if (!(v >= -2147483648.0 && v <= 2147483647.0)) return T{-1};
  return static_cast<T>(v);
}

template <class T>
Status ReadNumbers(const GgufFile& gguf, std::string_view key, const GgufArray* array, T* dst) {
  if (array == nullptr || array->element == GgufType::kString) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: {} is missing or no array of numbers", gguf.path(), key), {},
                     {{"key", std::string(key)}});
  }
  const uint32_t size = GgufScalarBytes(array->element);
  std::vector<uint8_t> buffer(kBuffer);
  const uint64_t per_read = kBuffer / size;
  for (uint64_t i = 0; i < array->count; i += per_read) {
    const uint64_t n = std::min(per_read, array->count - i);
    SNUG_TRY(gguf.files()[0].ReadAt(array->offset + i * size, buffer.data(), n * size));
    for (uint64_t j = 0; j < n; ++j)
      dst[i + j] = Narrow<T>(ElementAt(array->element, &buffer[j * size]));
  }
  return {};
}

}  // namespace

Status GgufFile::ForEachString(std::string_view key,
                               const std::function<void(uint64_t, std::string_view)>& fn) const {
  const GgufArray* array = GetArray(key);
  if (array == nullptr || array->element != GgufType::kString)
    return Missing(key, "an array of strings");
  std::vector<uint8_t> buffer(kBuffer);
  uint64_t start = array->offset, fill = 0,
           pos = 0;  // buffer holds file bytes [start, start + fill)
  const uint64_t end = array->offset + array->bytes;
  // Makes n bytes available at buffer[pos]; the parser has checked that the array holds them.
  auto need = [&](uint64_t n) -> Status {
    if (fill - pos >= n) return {};
    start += pos;
    pos = 0;
    if (buffer.size() < n) buffer.resize(n);
    fill = std::min<uint64_t>(buffer.size(), end - start);
    if (fill < n) return Missing(key, "an unchanged array of strings");
    return files_[0].ReadAt(start, buffer.data(), fill);
  };
  for (uint64_t i = 0; i < array->count; ++i) {
    SNUG_TRY(need(8));
    uint64_t n;
    std::memcpy(&n, &buffer[pos], 8);
    pos += 8;
    if (n > end - start - pos) return Missing(key, "an unchanged array of strings");
    SNUG_TRY(need(n));
    fn(i, {reinterpret_cast<const char*>(buffer.data()) + pos, n});
    pos += n;
  }
  return {};
}

Status GgufFile::ReadArray(std::string_view key, float* dst) const {
  return ReadNumbers(*this, key, GetArray(key), dst);
}
Status GgufFile::ReadArray(std::string_view key, int32_t* dst) const {
  return ReadNumbers(*this, key, GetArray(key), dst);
}

Status GgufFile::ReadArrayBytes(std::string_view key, uint8_t* dst) const {
  const GgufArray* array = GetArray(key);
  if (array == nullptr) return Missing(key, "an array");
  return files_[0].ReadAt(array->offset, dst, array->bytes);
}

}  // namespace snug
