// The methods that share.cc lists, one line each.
#pragma once

#include "kv/share/share.h"

namespace snug {

extern const ShareEntry kShareMiniCache;

}  // namespace snug
