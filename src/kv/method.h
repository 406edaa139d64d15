// What the seams over the cache (keep, codec, read, share, place) have in common: methods that know
// the spec string that asked for them, and registries that such strings name.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/spec.h"
#include "base/status.h"

namespace snug {

class KvMethod {
 public:
  virtual ~KvMethod() = default;
  const std::string& spec() const { return spec_; }  // as it was asked for
  void set_spec(std::string_view spec) { spec_ = spec; }

 private:
  std::string spec_;
};

// The method that a spec string (base/spec.h) names among a registry's entries, whose `make` takes
// the values of all parameters; null where that made none. Errors: ParseSpec's and those of `make`.
template <class Method, class Entry>
Result<std::shared_ptr<const Method>> ParseMethod(std::string_view spec,
                                                  std::span<const Entry* const> entries,
                                                  std::string_view option) {
  std::vector<SpecMethod> known;
  for (const Entry* entry : entries) known.push_back({entry->name, entry->parameters});
  SNUG_ASSIGN(const SpecChoice choice, ParseSpec(spec, known, option));
  SNUG_ASSIGN(std::shared_ptr<Method> method, entries[choice.method]->make(choice.values));
  if (method != nullptr) method->set_spec(spec);
  return std::shared_ptr<const Method>(std::move(method));
}

// The `make` of a method that takes any values of its parameters.
template <class Method, class Made>
Result<std::shared_ptr<Method>> MakeMethod(std::span<const double> values) {
  return std::shared_ptr<Method>(std::make_shared<Made>(values));
}

}  // namespace snug
