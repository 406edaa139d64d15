// Python's two ways of formatting: "%s" % values and "{}".format(values).
#pragma once

#include "text/jinja/runtime.h"

namespace snug::jinja {

// `values`: a tuple, a dict for "%(key)s", or the one value.
Result<Value> FormatPercent(Runtime& rt, const Value& format, const Value& values);
Result<Value> FormatBraces(Runtime& rt, const Value& format, const Args& args);
// format(value, spec), appended.
Status FormatValue(const Value& value, std::string_view spec, Text* out);

// A number's text, written into a field: what both ways share.
struct Field {
  std::string fill = " ";
  char align = 0;   // '<', '>', '^', or '=': between sign and digits
  char sign = '-';  // '+': always one; ' ': a space for positive numbers
  bool alternate = false;
  char separator = 0;  // between thousands
  int64_t width = 0;
  int64_t precision = -1;
};
// Sign and digits, padded to the field's width.
void AppendPadded(const Field& field, std::string_view sign, std::string_view digits, Text* out);
// The value in one of the conversions d b o x X c, or e E f F g G %.
Status AppendInteger(const Field& field, char conversion, int64_t value, Text* out);
Status AppendFloat(const Field& field, char conversion, double value, Text* out);
// Text cut to the precision and padded.
void AppendString(Field field, std::string_view text, Text* out);

}  // namespace snug::jinja
