#include "base/spec.h"

#include <gtest/gtest.h>

namespace snug {
namespace {

constexpr SpecParameter kParameters[] = {{"budget", "share", "0.2", 0.01, 1},
                                         {"window", "tokens", "32", 1, 100, true}};
constexpr std::string_view kWays[] = {"up", "down"};
constexpr SpecParameter kNamed[] = {{"way", "one of two", "down", 0, 1, true, kWays}};
constexpr SpecParameter kFree[] = {
    {.name = "layer", .help = "", .standard = "auto", .most = 9, .whole = true, .automatic = true}};
constexpr SpecMethod kMethods[] = {
    {"plain", {}}, {"snap", kParameters}, {"named", kNamed}, {"free", kFree}};

Result<SpecChoice> Parse(std::string_view text) { return ParseSpec(text, kMethods, "--keep"); }

TEST(Spec, NamesAMethodAndItsParameters) {
  auto plain = Parse("plain");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->method, 0u);
  EXPECT_TRUE(plain->values.empty());
  auto standard = Parse("snap");
  ASSERT_TRUE(standard.ok());
  EXPECT_EQ(standard->method, 1u);
  EXPECT_EQ(standard->values, (std::vector<double>{0.2, 32}));
  auto given = Parse("snap:window=7,budget=1/16");
  ASSERT_TRUE(given.ok());
  EXPECT_EQ(given->values, (std::vector<double>{1.0 / 16, 7}));
  EXPECT_EQ(Parse("named")->values, std::vector<double>{1});
  EXPECT_EQ(Parse("named:way=up")->values, std::vector<double>{0});
  EXPECT_EQ(Parse("free")->values, std::vector<double>{-1});
  EXPECT_EQ(Parse("free:layer=auto")->values, std::vector<double>{-1});
  EXPECT_EQ(Parse("free:layer=7")->values, std::vector<double>{7});
}

TEST(Spec, RefusesWithParameterValueAndNearestName) {
  struct Case {
    const char *text, *message, *next;
  };
  const Case kCases[] = {
      {"snpa", "'snpa' is no method", "snap"},
      {"", "'' is no method", "plain, snap"},
      {"named:way=left", "way=left is none of up, down", "way=down"},
      {"named:way=0", "way=0 is none of up, down", "way=down"},
      {"named:way=", "is none of up, down", "way=down"},
      {"snap:budgte=1", "no parameter 'budgte'", "budget"},
      {"plain:x=1", "no parameter 'x'", "none"},
      {"free:layer=-1", "layer=-1 is outside", "layer=auto"},
      {"free:layer=any", "layer=any is neither a number nor auto", "layer=auto"},
      {"snap:budget", "budget= is no number", "budget=0.2"},
      {"snap:budget=", "is no number", "budget=0.2"},
      {"snap:budget=many", "budget=many is no number", "budget=0.2"},
      {"snap:budget=1/0", "is no number", "budget=0.2"},
      {"snap:budget=nan", "is no number", "budget=0.2"},
      {"snap:budget=inf", "is no number", "budget=0.2"},
      {"snap:budget=2", "budget=2 is outside 0.01 .. 1", "budget=0.2"},
      {"snap:budget=-1", "is outside", "budget=0.2"},
      {"snap:window=1.5", "window=1.5 is no whole number", "window=32"},
      {"snap:window=1,window=2", "given twice", ""},
      {"snap:", "no parameter ''", "budget, window"},
      {"snap:window=1,", "no parameter ''", "budget, window"},
  };
  for (const Case& c : kCases) {
    auto spec = Parse(c.text);
    ASSERT_FALSE(spec.ok()) << c.text;
    EXPECT_EQ(spec.error().code, Code::kUsage);
    EXPECT_NE(spec.error().message.find(c.message), std::string::npos) << spec.error().message;
    EXPECT_NE(spec.error().next.find(c.next), std::string::npos) << spec.error().next;
  }
}

}  // namespace
}  // namespace snug
