// Nearest words and lines of progress.
#include <gtest/gtest.h>

#include "base/ledger.h"
#include "base/nearest.h"
#include "base/progress.h"

namespace snug {
namespace {

TEST(Nearest, FindsTypingErrorsAndNothingElse) {
  const std::vector<std::string> verbs = {"run", "plan", "tokenize", "eval"};
  EXPECT_EQ(NearestWord("rnu", verbs), "run");
  EXPECT_EQ(NearestWord("PLAN", verbs), "plan");
  EXPECT_EQ(NearestWord("tokenise", verbs), "tokenize");
  EXPECT_EQ(NearestWord("tokens", verbs), "");
  EXPECT_EQ(NearestWord("quantize", verbs), "");
  EXPECT_EQ(NearestWord("", {}), "");
  EXPECT_EQ(NearestWord(std::string(1 << 20, 'x'), verbs), "");
}

TEST(Progress, SaysWhatIsDoneHowFastAndHowLongStill) {
  EXPECT_EQ(ProgressLine("reading", ProgressUnit::kBytes, 512 * kMiB, 1536 * kMiB, 2),
            "reading: 512.0 MiB of 1.50 GiB, 256.0 MiB/s, 4 s left");
  EXPECT_EQ(ProgressLine("scoring", ProgressUnit::kTokens, 100, 10000, 2),
            "scoring: 100 of 10000 tokens, 50.0/s, 3:18 min left");
  EXPECT_EQ(ProgressLine("scoring", ProgressUnit::kTokens, 10, 1000000, 1),
            "scoring: 10 of 1000000 tokens, 10.0/s, 27:46 h left");
  EXPECT_EQ(ProgressLine("scoring", ProgressUnit::kTokens, 10, 10, 2),
            "scoring: 10 of 10 tokens, 5.0/s");
  EXPECT_EQ(ProgressLine("scoring", ProgressUnit::kTokens, 0, 10, 0), "scoring: 0 of 10 tokens");
}

TEST(Progress, WorkThatIsDoneAtOnceSaysNothing) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    Progress p("reading", ProgressUnit::kBytes, out, true);
    for (uint64_t i = 0; i <= 100; ++i) p.Update(i, 100);
  }
  std::fclose(out);
  EXPECT_EQ(size, 0u);
  std::free(text);
  Progress quiet("reading", ProgressUnit::kBytes, nullptr, false);
  quiet.Update(1, 2);
}

}  // namespace
}  // namespace snug
