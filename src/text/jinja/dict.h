// Dicts: building and looking up by any hashable key.
#pragma once

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace snug::jinja {

// An error for what Python cannot hash: lists, dicts and what holds them. Equal numbers have equal
// hashes whatever their kinds.
Result<uint64_t> Hash(Runtime& rt, const Value& v);

Ref<Dict> NewDict(Runtime& rt);
// Null where there is no such key.
Result<const Value*> DictFind(Runtime& rt, const Dict& dict, const Value& key);
// Adds, or replaces in place.
Status DictSet(Runtime& rt, Dict& dict, Value key, Value value);
void DictSetText(Runtime& rt, Dict& dict, std::string_view key, Value value);
inline Value ToValue(const Ref<Dict>& dict) { return Value(Kind::kDict, dict.get()); }

}  // namespace snug::jinja
