// The methods that keep.cc lists, one line each.
#pragma once

#include "kv/keep/keep.h"

namespace snug {

extern const KeepEntry kKeepChelsea;
extern const KeepEntry kKeepH2o;
extern const KeepEntry kKeepKeyformer;
extern const KeepEntry kKeepRandom;
extern const KeepEntry kKeepSinkWindow;
extern const KeepEntry kKeepSnapKv;
extern const KeepEntry kKeepTova;
extern const KeepEntry kKeepWindowKv;

}  // namespace snug
