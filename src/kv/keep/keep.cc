#include "kv/keep/keep.h"

#include "kv/keep/registry.h"

namespace snug {
namespace {

constexpr const KeepEntry* kMethods[] = {
    &kKeepChelsea,     //
    &kKeepH2o,         //
    &kKeepKeyformer,   //
    &kKeepRandom,      //
    &kKeepSinkWindow,  //
    &kKeepSnapKv,      //
    &kKeepTova,        //
    &kKeepWindowKv,    //
};

}  // namespace

std::span<const KeepEntry* const> KeepMethods() { return kMethods; }

Result<std::shared_ptr<const KeepMethod>> ParseKeep(std::string_view spec) {
  return ParseMethod<KeepMethod>(spec, KeepMethods(), "--kv-keep");
}

}  // namespace snug
