#include "format/gguf_write.h"

#include <bit>
#include <cstring>

namespace snug {

template <class T>
void GgufHeader::Put(std::string& to, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  to.append(bytes, sizeof(T));
}

void GgufHeader::Text(std::string_view text) {
  Put<uint64_t>(keys_, text.size());
  keys_ += text;
}

void GgufHeader::Key(std::string_view key, GgufType type) {
  Text(key);
  Put(keys_, static_cast<uint32_t>(type));
  ++n_keys_;
}

void GgufHeader::AddUint(std::string_view key, uint32_t value) {
  Key(key, GgufType::kU32);
  Put(keys_, value);
}
void GgufHeader::AddFloat(std::string_view key, float value) {
  Key(key, GgufType::kF32);
  Put(keys_, value);
}
void GgufHeader::AddBool(std::string_view key, bool value) {
  Key(key, GgufType::kBool);
  Put<uint8_t>(keys_, value);
}
void GgufHeader::AddString(std::string_view key, std::string_view value) {
  Key(key, GgufType::kString);
  Text(value);
}
void GgufHeader::AddStrings(std::string_view key, const std::vector<std::string>& values) {
  Key(key, GgufType::kArray);
  Put(keys_, static_cast<uint32_t>(GgufType::kString));
  Put<uint64_t>(keys_, values.size());
  for (const std::string& v : values) Text(v);
}
void GgufHeader::AddInts(std::string_view key, const std::vector<int32_t>& values) {
  Key(key, GgufType::kArray);
  Put(keys_, static_cast<uint32_t>(GgufType::kI32));
  Put<uint64_t>(keys_, values.size());
  for (const int32_t v : values) Put(keys_, v);
}
void GgufHeader::AddFloats(std::string_view key, const std::vector<float>& values) {
  Key(key, GgufType::kArray);
  Put(keys_, static_cast<uint32_t>(GgufType::kF32));
  Put<uint64_t>(keys_, values.size());
  for (const float v : values) Put(keys_, v);
}

Status GgufHeader::Copy(const ModelFile& file, const std::string& key) {
  const ModelFile::Value& value = *file.GetValue(key);
  Key(key, value.type);
  if (value.type == GgufType::kString) {
    Text(value.text);
  } else if (value.type == GgufType::kArray) {
    Put(keys_, static_cast<uint32_t>(value.array.element));
    Put<uint64_t>(keys_, value.array.count);
    const size_t at = keys_.size();
    keys_.resize(at + value.array.bytes);
    return file.ReadArrayBytes(key, reinterpret_cast<uint8_t*>(keys_.data()) + at);
  } else if (value.type == GgufType::kF32) {
    Put(keys_, static_cast<float>(std::bit_cast<double>(value.bits)));
  } else {
    char bytes[8];
    std::memcpy(bytes, &value.bits, 8);
    keys_.append(bytes, GgufScalarBytes(value.type));
  }
  return {};
}

void GgufHeader::AddTensor(const GgufTensorSpec& spec) {
  Put<uint64_t>(infos_, spec.name.size());
  infos_ += spec.name;
  Put(infos_, static_cast<uint32_t>(spec.n_dims));
  for (int d = 0; d < spec.n_dims; ++d) Put(infos_, spec.dims[static_cast<size_t>(d)]);
  Put(infos_, static_cast<uint32_t>(spec.type));
  Put(infos_, data_bytes_);
  offsets_.push_back(data_bytes_);
  data_bytes_ += (spec.bytes() + kAlignment - 1) / kAlignment * kAlignment;
}

std::string GgufHeader::Finish() const {
  std::string out = "GGUF";
  auto put = [&]<class T>(T v) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &v, sizeof(T));
    out.append(bytes, sizeof(T));
  };
  put(uint32_t{3});
  put(static_cast<uint64_t>(offsets_.size()));
  put(n_keys_);
  out += keys_;
  out += infos_;
  out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  return out;
}

}  // namespace snug
