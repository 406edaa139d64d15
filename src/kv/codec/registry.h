// The codecs that codec.cc lists, one line each.
#pragma once

#include "kv/codec/codec.h"

namespace snug {

extern const CodecEntry kCodecKivi;
extern const CodecEntry kCodecMillion;
extern const CodecEntry kCodecRotateKv;
extern const CodecEntry kCodecZipCache;

}  // namespace snug
