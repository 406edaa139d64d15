#include "kv/share/share.h"

#include <algorithm>

#include "kv/share/registry.h"
#include "kv/tiles.h"

namespace snug {
namespace {

constexpr const ShareEntry* kMethods[] = {
    &kShareMiniCache,  //
};

}  // namespace

uint32_t ShareMethod::Shared(uint32_t tokens) const {
  return (tokens - std::min(tokens, residual())) / kTile * kTile;
}

uint32_t ShareMethod::MostExact() const { return residual() + kTile; }

std::span<const ShareEntry* const> ShareMethods() { return kMethods; }

Result<std::shared_ptr<const ShareMethod>> ParseShare(std::string_view spec) {
  return ParseMethod<ShareMethod>(spec, ShareMethods(), "--kv-share");
}

}  // namespace snug
