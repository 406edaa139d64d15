#include "cli/interrupt.h"

#include <gtest/gtest.h>

#include <csignal>

namespace snug::cli {
namespace {

TEST(InterruptDeathTest, TheFirstIsNotedTheSecondEndsTheProgram) {
  EXPECT_FALSE(Interrupted());
  std::raise(SIGINT);
  EXPECT_TRUE(Interrupted());
  EXPECT_EQ(ExitCode(Cancelled().code), 5);
  EXPECT_EXIT(std::raise(SIGINT), ::testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace snug::cli
