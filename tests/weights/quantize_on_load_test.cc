// Weights quantized as they are loaded are those of the file that quantizing writes.
#include <gtest/gtest.h>

#include <cstring>

#include "format/gguf.h"
#include "format/gguf_convert.h"
#include "format/recipe.h"
#include "model/model.h"
#include "testing.h"
#include "tiny_model.h"
#include "weights/stream.h"

namespace snug {
namespace {

struct OnLoad {
  std::unique_ptr<ModelFile> file;
  std::unique_ptr<Model> model;
  WeightLayout layout;
};

OnLoad OpenOnLoad(const std::string& path, const char* recipe) {
  OnLoad o;
  o.file = ModelFile::Open(path).value();
  if (recipe != nullptr) {
    const Status s = QuantizeOnLoad(*o.file, FindRecipe(recipe).value());
    EXPECT_TRUE(s.ok()) << s.error().message;
  }
  o.model = Model::Open(*o.file).value();
  o.layout = MakeLayout(*o.file, *o.model).value();
  return o;
}

TEST(QuantizeOnLoad, GivesWhatTheQuantizedFileHas) {
  const testing::TinyModel tiny{.layers = 2, .dim = 256, .heads = 4, .ffn = 512, .context = 64};
  const std::string path = tiny.Write();
  for (const char* recipe : {"q8_0", "q4_k_m", "q3_k"}) {
    const OnLoad loaded = OpenOnLoad(path, recipe);
    // The same by way of a file.
    const Recipe r = FindRecipe(recipe).value();
    auto source = GgufFile::Open(path);
    auto plan = PlanGguf(
        *source, [&](const TensorInfo& t) { return RecipeType(r, *source, t); }, 0, nullptr,
        nullptr);
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    const std::string quantized = testing::TempDir() + "/q.gguf";
    Ledger ledger(256 * kMiB);
    ThreadPool pool(2);
    ASSERT_TRUE(WriteGguf(*source, *plan, quantized, recipe, ledger, pool, nullptr, nullptr).ok());
    const OnLoad stored = OpenOnLoad(quantized, nullptr);

    auto a = MakeResidentPlace(*loaded.file, loaded.layout, ledger, pool, nullptr);
    auto b = MakeResidentPlace(*stored.file, stored.layout, ledger, pool, nullptr);
    auto c = MakeStreamPlace(*loaded.file, loaded.layout, ledger, {2, 1, 0, {}});
    ASSERT_TRUE(a.ok() && b.ok() && c.ok());
    ASSERT_EQ(loaded.layout.parts.size(), stored.layout.parts.size());
    (*c)->BeginPass(loaded.layout.parts.size(), 0);
    for (size_t p = 0; p < loaded.layout.parts.size(); ++p) {
      const size_t bytes = loaded.layout.parts[p].bytes;
      ASSERT_EQ(bytes, stored.layout.parts[p].bytes) << p;
      const uint8_t* first = (*a)->Acquire(p).value();
      EXPECT_EQ(std::memcmp(first, (*b)->Acquire(p).value(), bytes), 0) << recipe << " " << p;
      if (p == 0) continue;
      EXPECT_EQ(std::memcmp(first, (*c)->Acquire(p).value(), bytes), 0) << recipe << " " << p;
      (*c)->Release(p);
    }
  }
}

TEST(QuantizeOnLoad, RefusesWhatIsQuantizedAlready) {
  const testing::TinyModel tiny;
  const std::string path = tiny.Write();
  auto file = ModelFile::Open(path);
  ASSERT_TRUE(QuantizeOnLoad(**file, FindRecipe("q8_0").value()).ok());
  EXPECT_NE((*file)->Find("blk.0.ffn_up.weight")->type, DType::kF32);
  const Status s = QuantizeOnLoad(**file, FindRecipe("q4_0").value());
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().code, Code::kUsage);
}

}  // namespace
}  // namespace snug
