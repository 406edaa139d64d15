// How weights are laid out, and what of a file is refused there.
#include <gtest/gtest.h>

#include "model/model.h"
#include "tiny_model.h"
#include "weights/stream.h"

namespace snug {
namespace {

Result<WeightLayout> LayoutOf(const std::string& path) {
  SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, ModelFile::Open(path));
  SNUG_ASSIGN(const std::unique_ptr<Model> model, Model::Open(*file));
  return MakeLayout(*file, *model);
}

// A panel of rows must fit the smallest buffer that it is read through, that of streaming.
TEST(Layout, RowsTooLongForAPanelToBeReadAreRefused) {
  testing::TinyModel model;
  model.layers = 1;
  model.dim = 16;
  model.heads = 1;
  model.ffn = 60000;
  auto layout = LayoutOf(model.Write());
  ASSERT_TRUE(layout.ok()) << layout.error().message;
  model.ffn = 70000;
  layout = LayoutOf(model.Write());
  ASSERT_FALSE(layout.ok());
  EXPECT_EQ(layout.error().code, Code::kBadFile);
  EXPECT_NE(layout.error().message.find("70000"), std::string::npos);
}

}  // namespace
}  // namespace snug
