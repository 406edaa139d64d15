// The filter tojson as transformers defines it: Python's json.dumps without HTML escapes.
#pragma once

#include "text/jinja/runtime.h"

namespace snug::jinja {

// Parameters: ensure_ascii=False, indent=None, separators=None, sort_keys=False.
Result<Value> ToJson(Runtime& rt, const Value& self, const Args& args);

}  // namespace snug::jinja
