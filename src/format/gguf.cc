#include "format/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "format/gguf_value.h"

namespace snug {
namespace {

constexpr uint64_t kBuffer = 64 << 10;

bool IsSigned(GgufType t) {
  return t == GgufType::kI8 || t == GgufType::kI16 || t == GgufType::kI32 || t == GgufType::kI64;
}
bool IsUnsigned(GgufType t) {
  return t == GgufType::kU8 || t == GgufType::kU16 || t == GgufType::kU32 || t == GgufType::kU64;
}
bool IsFloat(GgufType t) { return t == GgufType::kF32 || t == GgufType::kF64; }

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
    SNUG_TRY(gguf.file(0).ReadAt(array->offset + i * size, buffer.data(), n * size));
    for (uint64_t j = 0; j < n; ++j)
      dst[i + j] = Narrow<T>(ElementAt(array->element, &buffer[j * size]));
  }
  return {};
}

Error Missing(const GgufFile& file, std::string_view key, const char* kind) {
  return MakeError(Code::kBadFile,
                   fmt::format("{}: metadata key {} ({}) is missing", file.path(), key, kind),
                   "the file is incomplete or no language model", {{"key", std::string(key)}});
}

}  // namespace

uint32_t GgufScalarBytes(GgufType type) {
  constexpr uint8_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<size_t>(type)];
}

const char* GgufTypeName(GgufType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<size_t>(type)];
}

uint64_t GgufFile::file_bytes() const {
  uint64_t bytes = 0;
  for (const File& f : files_) bytes += f.size();
  return bytes;
}

const TensorInfo* GgufFile::Find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

bool GgufFile::Has(std::string_view key) const { return values_.find(key) != values_.end(); }

std::optional<uint64_t> GgufFile::GetUint(std::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) return std::nullopt;
  const Value& v = *it->second;
  if (IsUnsigned(v.type)) return v.bits;
  if (IsSigned(v.type) && static_cast<int64_t>(v.bits) >= 0) return v.bits;
  return std::nullopt;
}

std::optional<int64_t> GgufFile::GetInt(std::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) return std::nullopt;
  const Value& v = *it->second;
  if (IsSigned(v.type)) return static_cast<int64_t>(v.bits);
  if (IsUnsigned(v.type) && static_cast<int64_t>(v.bits) >= 0) return static_cast<int64_t>(v.bits);
  return std::nullopt;
}

std::optional<double> GgufFile::GetFloat(std::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end()) return std::nullopt;
  const Value& v = *it->second;
  if (IsFloat(v.type)) return std::bit_cast<double>(v.bits);
  if (IsUnsigned(v.type)) return static_cast<double>(v.bits);
  if (IsSigned(v.type)) return static_cast<double>(static_cast<int64_t>(v.bits));
  return std::nullopt;
}

std::optional<bool> GgufFile::GetBool(std::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end() || it->second->type != GgufType::kBool) return std::nullopt;
  return it->second->bits != 0;
}

std::optional<std::string> GgufFile::GetString(std::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end() || it->second->type != GgufType::kString) return std::nullopt;
  return it->second->text;
}

Result<uint64_t> GgufFile::NeedUint(std::string_view key) const {
  if (const auto v = GetUint(key)) return *v;
  return Missing(*this, key, "an unsigned integer");
}

Result<double> GgufFile::NeedFloat(std::string_view key) const {
  if (const auto v = GetFloat(key)) return *v;
  return Missing(*this, key, "a number");
}

Result<std::string> GgufFile::NeedString(std::string_view key) const {
  if (auto v = GetString(key)) return *std::move(v);
  return Missing(*this, key, "a string");
}

const GgufArray* GgufFile::GetArray(std::string_view key) const {
  const auto it = values_.find(key);
  if (it == values_.end() || it->second->type != GgufType::kArray) return nullptr;
  return &it->second->array;
}

Status GgufFile::ForEachString(std::string_view key,
                               const std::function<void(uint64_t, std::string_view)>& fn) const {
  const GgufArray* array = GetArray(key);
  if (array == nullptr || array->element != GgufType::kString)
    return Missing(*this, key, "an array of strings");
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
    if (fill < n) return Missing(*this, key, "an unchanged array of strings");
    return files_[0].ReadAt(start, buffer.data(), fill);
  };
  for (uint64_t i = 0; i < array->count; ++i) {
    SNUG_TRY(need(8));
    uint64_t n;
    std::memcpy(&n, &buffer[pos], 8);
    pos += 8;
    if (n > end - start - pos) return Missing(*this, key, "an unchanged array of strings");
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

std::vector<GgufFile::KeyText> GgufFile::Describe(size_t max_chars) const {
  std::vector<KeyText> keys;
  for (const std::string& key : key_order_) {
    const Value& v = *values_.find(key)->second;
    KeyText k{key, GgufTypeName(v.type), {}};
    if (v.type == GgufType::kString) {
      k.value = v.text.size() > max_chars ? v.text.substr(0, max_chars) + "..." : v.text;
    } else if (v.type == GgufType::kArray) {
      k.value = fmt::format("{} x {}", v.array.count, GgufTypeName(v.array.element));
    } else if (v.type == GgufType::kBool) {
      k.value = v.bits != 0 ? "true" : "false";
    } else if (IsFloat(v.type)) {
      k.value = fmt::format("{}", static_cast<float>(std::bit_cast<double>(v.bits)));
    } else {
      k.value =
          IsSigned(v.type) ? std::to_string(static_cast<int64_t>(v.bits)) : std::to_string(v.bits);
    }
    keys.push_back(std::move(k));
  }
  return keys;
}

}  // namespace snug
