#include "engine/lookup.h"

#include <gtest/gtest.h>

namespace snug {
namespace {

TEST(Lookup, ProposesWhatFollowedTheLastTokensBefore) {
  Ledger ledger(kMiB);
  auto lookup = Lookup::Create(100, 8, ledger);
  ASSERT_TRUE(lookup.ok());
  EXPECT_EQ(ledger.snapshot().total, Lookup::Bytes(100));
  for (Token t : {1, 2, 3, 4, 5, 6, 9, 2, 3, 4}) lookup->Append(t);
  const auto draft = lookup->Draft(3);
  EXPECT_EQ(std::vector<Token>(draft.begin(), draft.end()), (std::vector<Token>{5, 6, 9}));
  EXPECT_TRUE(lookup->Draft(0).empty());
  lookup->Append(77);
  EXPECT_TRUE(lookup->Draft(8).empty());
}

TEST(Lookup, LatestOccurrenceWins) {
  Ledger ledger(kMiB);
  auto lookup = Lookup::Create(100, 8, ledger);
  for (Token t : {1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3}) lookup->Append(t);
  ASSERT_FALSE(lookup->Draft(1).empty());
  EXPECT_EQ(lookup->Draft(1)[0], 8);
}

TEST(Lookup, SwitchesItselfOffWhenItDoesNotPay) {
  Ledger ledger(kMiB);
  auto lookup = Lookup::Create(4000, 8, ledger);
  lookup->Report(0, 0, 1.0);
  int drafts = 0;
  for (int i = 0; i < 1000; ++i) {
    for (Token t : {1, 2, 3}) lookup->Append(t);
    const size_t n = lookup->Draft(8).size();
    drafts += n > 0 ? 1 : 0;
    lookup->Report(n, 0, n > 0 ? 2.0 : 1.0);  // never accepted, twice the time
  }
  EXPECT_GT(drafts, 0);
  EXPECT_LT(drafts, 100);
}

TEST(Lookup, FullTablesAreHarmless) {
  Ledger ledger(kMiB);
  auto lookup = Lookup::Create(8, 8, ledger);
  for (Token t = 0; t < 50; ++t) lookup->Append(t % 3);
  EXPECT_LE(lookup->Draft(8).size(), 8u);
}

}  // namespace
}  // namespace snug
