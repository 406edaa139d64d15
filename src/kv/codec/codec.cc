#include "kv/codec/codec.h"

#include <algorithm>
#include <vector>

#include "kv/codec/registry.h"

namespace snug {
namespace {

constexpr const CodecEntry* kCodecs[] = {
    &kCodecKivi,  //
};

}  // namespace

std::span<const CodecEntry* const> Codecs() { return kCodecs; }

bool NamesCodec(std::string_view spec) {
  const std::string_view name = spec.substr(0, spec.find(':'));
  return std::any_of(std::begin(kCodecs), std::end(kCodecs),
                     [&](const CodecEntry* e) { return e->name == name; });
}

Result<std::shared_ptr<const KvCodec>> ParseCodec(std::string_view spec) {
  std::vector<SpecMethod> known;
  for (const CodecEntry* entry : kCodecs) known.push_back({entry->name, entry->parameters});
  SNUG_ASSIGN(const SpecChoice choice, ParseSpec(spec, known, "--kv"));
  SNUG_ASSIGN(std::shared_ptr<KvCodec> codec, kCodecs[choice.method]->make(choice.values));
  codec->spec_ = spec;
  return std::shared_ptr<const KvCodec>(std::move(codec));
}

}  // namespace snug
