// GGUF files by the byte, for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace snug::testing {

// Writes GGUF fields into a string, one after the other; nothing is checked, so that tests can
// leave parts out or falsify them.
class GgufBuilder {
 public:
  template <class T>
  GgufBuilder& Put(T v) {
    bytes.append(reinterpret_cast<const char*>(&v), sizeof(v));
    return *this;
  }
  GgufBuilder& Text(const std::string& s) {
    Put<uint64_t>(s.size());
    bytes += s;
    return *this;
  }
  GgufBuilder& Header(uint32_t version, uint64_t tensors, uint64_t keys) {
    bytes += "GGUF";
    return Put(version).Put(tensors).Put(keys);
  }
  GgufBuilder& U32(const std::string& key, uint32_t v) { return Text(key).Put<uint32_t>(4).Put(v); }
  GgufBuilder& String(const std::string& key, const std::string& v) {
    return Text(key).Put<uint32_t>(8).Text(v);
  }
  GgufBuilder& Strings(const std::string& key, const std::vector<std::string>& v) {
    Text(key).Put<uint32_t>(9).Put<uint32_t>(8).Put<uint64_t>(v.size());
    for (const auto& s : v) Text(s);
    return *this;
  }
  GgufBuilder& Bool(const std::string& key, bool v) {
    return Text(key).Put<uint32_t>(7).Put<uint8_t>(v ? 1 : 0);
  }
  GgufBuilder& Float(const std::string& key, float v) { return Text(key).Put<uint32_t>(6).Put(v); }
  GgufBuilder& Floats(const std::string& key, const std::vector<float>& v) {
    return Array<float>(key, 6, v);
  }
  GgufBuilder& Ints(const std::string& key, const std::vector<int32_t>& v) {
    return Array<int32_t>(key, 5, v);
  }
  GgufBuilder& Tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type,
                      uint64_t offset) {
    Text(name).Put(static_cast<uint32_t>(dims.size()));
    for (uint64_t d : dims) Put(d);
    return Put(type).Put(offset);
  }
  GgufBuilder& Data(size_t n) {
    bytes.resize((bytes.size() + 31) / 32 * 32 + n, 'x');
    return *this;
  }
  // The tensors' own bytes, aligned as the format asks.
  GgufBuilder& Data(const std::vector<uint8_t>& data) {
    bytes.resize((bytes.size() + 31) / 32 * 32);
    bytes.append(reinterpret_cast<const char*>(data.data()), data.size());
    return *this;
  }
  std::string bytes;

 private:
  template <class T>
  GgufBuilder& Array(const std::string& key, uint32_t type, const std::vector<T>& v) {
    Text(key).Put<uint32_t>(9).Put(type).Put<uint64_t>(v.size());
    for (const T& x : v) Put(x);
    return *this;
  }
};

}  // namespace snug::testing
