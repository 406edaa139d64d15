#include "kv/keep/keep.h"

#include <vector>

#include "kv/keep/registry.h"

namespace snug {
namespace {

constexpr const KeepEntry* kMethods[] = {
    &kKeepH2o,         //
    &kKeepKeyformer,   //
    &kKeepRandom,      //
    &kKeepSinkWindow,  //
    &kKeepSnapKv,      //
    &kKeepTova,        //
};

}  // namespace

std::span<const KeepEntry* const> KeepMethods() { return kMethods; }

Result<std::shared_ptr<const KeepMethod>> ParseKeep(std::string_view spec) {
  std::vector<SpecMethod> known;
  for (const KeepEntry* entry : kMethods) known.push_back({entry->name, entry->parameters});
  SNUG_ASSIGN(const SpecChoice choice, ParseSpec(spec, known, "--kv-keep"));
  std::shared_ptr<KeepMethod> method = kMethods[choice.method]->make(choice.values);
  method->spec_ = spec;
  return std::shared_ptr<const KeepMethod>(std::move(method));
}

}  // namespace snug
