#include "tokens/reduce/reduce.h"

#include "tokens/reduce/registry.h"

namespace snug {
namespace {

constexpr const ReduceEntry* kMethods[] = {
    &kReduceGemFilter,  //
};

}  // namespace

std::span<const ReduceEntry* const> ReduceMethods() { return kMethods; }

Result<std::shared_ptr<const ReduceMethod>> ParseReduce(std::string_view spec) {
  return ParseMethod<ReduceMethod>(spec, ReduceMethods(), "--reduce");
}

}  // namespace snug
