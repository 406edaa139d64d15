#include "format/model_file.h"

#include <fmt/format.h>

#include <bit>
#include <cassert>
#include <filesystem>

#include "format/gguf.h"
#include "format/hf_folder.h"
#include "format/quantize.h"

namespace snug {
namespace {

bool IsSigned(GgufType t) {
  return t == GgufType::kI8 || t == GgufType::kI16 || t == GgufType::kI32 || t == GgufType::kI64;
}
bool IsUnsigned(GgufType t) {
  return t == GgufType::kU8 || t == GgufType::kU16 || t == GgufType::kU32 || t == GgufType::kU64;
}
bool IsFloat(GgufType t) { return t == GgufType::kF32 || t == GgufType::kF64; }

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

Result<std::unique_ptr<ModelFile>> ModelFile::Open(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    SNUG_ASSIGN(HfFolder folder, HfFolder::Open(path));
    return std::unique_ptr<ModelFile>(std::make_unique<HfFolder>(std::move(folder)));
  }
  SNUG_ASSIGN(GgufFile file, GgufFile::Open(path));
  return std::unique_ptr<ModelFile>(std::make_unique<GgufFile>(std::move(file)));
}

uint64_t ModelFile::file_bytes() const {
  uint64_t bytes = 0;
  for (const File& f : files_) bytes += f.size();
  return bytes;
}

const TensorInfo* ModelFile::Find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

bool ModelFile::AddValue(const std::string& key, Value value) {
  if (!values_.emplace(key, std::move(value)).second) return false;
  key_order_.push_back(key);
  return true;
}

bool ModelFile::AddTensor(TensorInfo tensor) {
  if (!by_name_.emplace(tensor.name, tensors_.size()).second) return false;
  tensors_.push_back(std::move(tensor));
  return true;
}

const ModelFile::Value* ModelFile::GetValue(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

Error ModelFile::Missing(std::string_view key, const char* kind) const {
  return MakeError(Code::kBadFile,
                   fmt::format("{}: metadata key {} ({}) is missing", path_, key, kind),
                   "the file is incomplete or no language model", {{"key", std::string(key)}});
}

void ModelFile::Retype(const std::function<DType(const TensorInfo&)>& type_of) {
  for (TensorInfo& t : tensors_) {
    const DType type = type_of(t);
    if (type == t.type) continue;
    assert(CanQuantize(type) && t.cols() % Info(type).block == 0);
    if (t.source == nullptr) {
      auto source = std::make_shared<TensorSource>();
      source->type = t.type;
      source->runs.push_back(
          {t.file, t.offset, t.rows(), RowBytes(t.type, t.cols()), Info(t.type).bytes});
      t.source = std::move(source);
    }
    t.type = type;
  }
}

bool ModelFile::Has(std::string_view key) const { return GetValue(key) != nullptr; }

std::optional<uint64_t> ModelFile::GetUint(std::string_view key) const {
  const Value* v = GetValue(key);
  if (v == nullptr) return std::nullopt;
  if (IsUnsigned(v->type)) return v->bits;
  if (IsSigned(v->type) && static_cast<int64_t>(v->bits) >= 0) return v->bits;
  return std::nullopt;
}

std::optional<int64_t> ModelFile::GetInt(std::string_view key) const {
  const Value* v = GetValue(key);
  if (v == nullptr) return std::nullopt;
  if (IsSigned(v->type)) return static_cast<int64_t>(v->bits);
  if (IsUnsigned(v->type) && static_cast<int64_t>(v->bits) >= 0)
    return static_cast<int64_t>(v->bits);
  return std::nullopt;
}

std::optional<double> ModelFile::GetFloat(std::string_view key) const {
  const Value* v = GetValue(key);
  if (v == nullptr) return std::nullopt;
  if (IsFloat(v->type)) return std::bit_cast<double>(v->bits);
  if (IsUnsigned(v->type)) return static_cast<double>(v->bits);
  if (IsSigned(v->type)) return static_cast<double>(static_cast<int64_t>(v->bits));
  return std::nullopt;
}

std::optional<bool> ModelFile::GetBool(std::string_view key) const {
  const Value* v = GetValue(key);
  if (v == nullptr || v->type != GgufType::kBool) return std::nullopt;
  return v->bits != 0;
}

std::optional<std::string> ModelFile::GetString(std::string_view key) const {
  const Value* v = GetValue(key);
  if (v == nullptr || v->type != GgufType::kString) return std::nullopt;
  return v->text;
}

Result<uint64_t> ModelFile::NeedUint(std::string_view key) const {
  if (const auto v = GetUint(key)) return *v;
  return Missing(key, "an unsigned integer");
}

Result<double> ModelFile::NeedFloat(std::string_view key) const {
  if (const auto v = GetFloat(key)) return *v;
  return Missing(key, "a number");
}

Result<std::string> ModelFile::NeedString(std::string_view key) const {
  if (auto v = GetString(key)) return *std::move(v);
  return Missing(key, "a string");
}

const GgufArray* ModelFile::GetArray(std::string_view key) const {
  const Value* v = GetValue(key);
  return v == nullptr || v->type != GgufType::kArray ? nullptr : &v->array;
}

std::vector<ModelFile::KeyText> ModelFile::Describe(size_t max_chars) const {
  std::vector<KeyText> keys;
  for (const std::string& key : key_order_) {
    const Value& v = *GetValue(key);
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
