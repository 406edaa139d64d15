#include "kv/codec/codec.h"

#include <algorithm>

#include "kv/codec/registry.h"

namespace snug {
namespace {

constexpr const CodecEntry* kCodecs[] = {
    &kCodecKivi,      //
    &kCodecMillion,   //
    &kCodecRotateKv,  //
    &kCodecZipCache,
};

}  // namespace

std::span<const CodecEntry* const> Codecs() { return kCodecs; }

bool NamesCodec(std::string_view spec) {
  const std::string_view name = spec.substr(0, spec.find(':'));
  return std::any_of(std::begin(kCodecs), std::end(kCodecs),
                     [&](const CodecEntry* e) { return e->name == name; });
}

Result<std::shared_ptr<const KvCodec>> ParseCodec(std::string_view spec) {
  return ParseMethod<KvCodec>(spec, Codecs(), "--kv");
}

}  // namespace snug
