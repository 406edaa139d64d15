#include "text/jinja/builtins.h"

#include <map>

namespace snug::jinja {

Builtin FindFilter(std::string_view name) {
  static const auto* const kAll = [] {
    auto* all = new std::map<std::string_view, Builtin>;
    for (const NamedFilter* table :
         {kTextFilters, kNumberFilters, kSequenceFilters, kLazyFilters}) {
      for (; table->name != nullptr; ++table) all->emplace(table->name, table->filter);
    }
    return all;
  }();
  const auto found = kAll->find(name);
  return found == kAll->end() ? nullptr : found->second;
}

}  // namespace snug::jinja
