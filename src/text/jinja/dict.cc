#include "text/jinja/dict.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>
#include <cstring>

#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

constexpr size_t kFew = 8;  // entries that are searched one by one

uint64_t HashText(std::string_view s, uint64_t seed) { return XXH64(s.data(), s.size(), seed); }
uint64_t HashBits(uint64_t bits, uint64_t seed) { return XXH64(&bits, sizeof bits, seed); }

uint64_t HashFloat(double d, uint64_t seed) {
  constexpr double kInt64 = 9223372036854775808.0;
  if (d >= -kInt64 && d < kInt64 && d == std::floor(d)) {
    return HashBits(static_cast<uint64_t>(static_cast<int64_t>(d)), seed);
  }
  uint64_t bits;
  std::memcpy(&bits, &d, sizeof bits);
  return HashBits(bits, seed + 1);
}

void Index(Dict& dict, size_t entry) {
  const size_t mask = dict.slots.size() - 1;
  size_t i = dict.entries[entry].hash & mask;
  while (dict.slots[i] != 0) i = (i + 1) & mask;
  dict.slots[i] = static_cast<uint32_t>(entry + 1);
}

// The slots are kept at most half full.
void Append(Runtime& rt, Dict& dict, Value key, Value value, uint64_t hash) {
  dict.entries.push_back({std::move(key), std::move(value), hash});
  uint64_t grown = sizeof(Dict::Entry);
  const size_t n = dict.entries.size();
  if (n > kFew && dict.slots.size() < 2 * n) {
    grown += 3 * n * sizeof(uint32_t);
    dict.slots.assign(dict.slots.empty() ? 4 * kFew : 2 * dict.slots.size(), 0);
    for (size_t i = 0; i < n; ++i) Index(dict, i);
  } else if (!dict.slots.empty()) {
    Index(dict, n - 1);
  }
  rt.heap.Grow(&dict, grown);
}

// Calls matches(entry) on the entries that may have this hash, until it says so or there are none.
template <class F>
const Dict::Entry* Probe(const Dict& dict, uint64_t hash, const F& matches) {
  if (dict.slots.empty()) {
    for (const Dict::Entry& e : dict.entries) {
      if (e.hash == hash && matches(e)) return &e;
    }
    return nullptr;
  }
  const size_t mask = dict.slots.size() - 1;
  for (size_t i = hash & mask; dict.slots[i] != 0; i = (i + 1) & mask) {
    const Dict::Entry& e = dict.entries[dict.slots[i] - 1];
    if (e.hash == hash && matches(e)) return &e;
  }
  return nullptr;
}

const Dict::Entry* ProbeText(const Dict& dict, std::string_view key, uint64_t hash) {
  return Probe(dict, hash, [&](const Dict::Entry& e) {
    return e.key.is(Kind::kString) && e.key.text() == key;
  });
}

Result<const Dict::Entry*> ProbeValue(Runtime& rt, const Dict& dict, const Value& key,
                                      uint64_t hash) {
  if (key.is(Kind::kString)) return ProbeText(dict, key.text(), hash);
  Status failed;
  const Dict::Entry* found = Probe(dict, hash, [&](const Dict::Entry& e) {
    Result<bool> same = Equal(rt, e.key, key);
    if (same.ok()) return *same;
    failed = std::move(same).error();
    return true;
  });
  if (!failed.ok()) return std::move(failed).error();
  return found;
}

}  // namespace

Result<uint64_t> Hash(Runtime& rt, const Value& v) {
  if (!rt.Spend()) return rt.Exhausted();
  const uint64_t seed = rt.heap.seed();
  switch (v.kind()) {
    case Kind::kString:
      if (!rt.SpendOn(v.text().size())) return rt.Exhausted();
      return HashText(v.text(), seed);
    case Kind::kBool:
    case Kind::kInt:
      return HashBits(static_cast<uint64_t>(v.integer()), seed);
    case Kind::kFloat:
      return HashFloat(v.number(), seed);
    case Kind::kTuple: {
      const Runtime::Nest nest(rt);
      if (nest.too_deep()) return rt.TooDeep();
      uint64_t hash = seed + 2;
      for (const Value& item : v.items()) {
        SNUG_ASSIGN(const uint64_t h, Hash(rt, item));
        hash = HashBits(h, hash);
      }
      return hash;
    }
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
      return Fail(fmt::format("unhashable type: '{}'", TypeName(v)));
    case Kind::kUndefined:
    case Kind::kNone:
      return HashBits(static_cast<uint64_t>(v.kind()), seed + 3);
    case Kind::kRange:
      return HashBits(static_cast<uint64_t>(v.range().size), seed + 4);
    case Kind::kIterator:
    case Kind::kNamespace:
    case Kind::kSpecial:
      break;
  }
  return HashBits(reinterpret_cast<uintptr_t>(v.object()), seed + 5);
}

const Value* Dict::Find(std::string_view key) const {
  const Entry* e = ProbeText(*this, key, HashText(key, seed));
  return e == nullptr ? nullptr : &e->value;
}

Ref<Dict> NewDict(Runtime& rt) {
  Ref<Dict> dict = rt.heap.New<Dict>(0);
  dict->seed = rt.heap.seed();
  return dict;
}

Result<const Value*> DictFind(Runtime& rt, const Dict& dict, const Value& key) {
  SNUG_ASSIGN(const uint64_t hash, Hash(rt, key));
  SNUG_ASSIGN(const Dict::Entry* e, ProbeValue(rt, dict, key, hash));
  return e == nullptr ? nullptr : &e->value;
}

Status DictSet(Runtime& rt, Dict& dict, Value key, Value value) {
  SNUG_ASSIGN(const uint64_t hash, Hash(rt, key));
  SNUG_ASSIGN(const Dict::Entry* e, ProbeValue(rt, dict, key, hash));
  if (e != nullptr) {
    const_cast<Dict::Entry*>(e)->value = std::move(value);
  } else {
    Append(rt, dict, std::move(key), std::move(value), hash);
  }
  return {};
}

void DictSetText(Runtime& rt, Dict& dict, std::string_view key, Value value) {
  const uint64_t hash = HashText(key, dict.seed);
  if (const Dict::Entry* e = ProbeText(dict, key, hash)) {
    const_cast<Dict::Entry*>(e)->value = std::move(value);
  } else {
    Append(rt, dict, rt.NewString(std::string(key)), std::move(value), hash);
  }
}

}  // namespace snug::jinja
