// Rows that live in a file, in whole models: every bit as in memory, plan and ledger equal, errors
// of the disk, refusals by name.
#include "kv/place/place.h"

#include <cmath>

#include "broken_file.h"
#include "engine/generate.h"
#include "engine_testing.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::PromptAndTokens;
using testing::SomeTokens;

EngineOptions PlaceOptions(const std::string& arch, const std::string& read,
                           const std::string& place) {
  EngineOptions o = testing::TinyOptions(arch);
  o.logit_rows = 1;
  if (read.rfind("double", 0) == 0 && testing::Exists(o.model_path)) {
    static std::map<std::string, std::string> known;
    std::string& file = known[arch];
    if (file.empty()) file = testing::RankChannels(testing::TinyOptions(arch), "place_" + arch);
    o.channels = file;
  }
  auto method = ParseRead(read);
  EXPECT_TRUE(method.ok()) << read;
  if (method.ok()) o.read = *method;
  auto where = ParsePlace(place);
  EXPECT_TRUE(where.ok()) << place;
  if (where.ok()) o.kv_place = *where;
  return o;
}

constexpr const char* kPlaceReads[] = {"quest:tokens=48,dense-layers=1",
                                       "quest:tokens=1/4,least=20,dense-layers=0,page=4",
                                       "double-sparsity:tokens=40,dense-layers=0,channels=1/2"};
constexpr const char* kPlaceArchs[] = {"qwen2", "gemma3"};  // without windows, and with some

// Whatever is in memory of the rows, whatever the chunks and threads, beside another sequence too.
TEST(EnginePlace, EveryBitIsAsInMemory) {
  for (const char* arch : kPlaceArchs) {
    SNUG_NEED(testing::TinyOptions(arch).model_path);
    for (const char* read : kPlaceReads) {
      auto memory = OpenOrFail(PlaceOptions(arch, read, "memory"));
      const auto tokens = SomeTokens(250, memory->config().vocab);
      const auto reference = PromptAndTokens(*memory, 0, tokens, 170);
      for (const char* place : {"disk", "disk:hot=0,readers=1"}) {
        EngineOptions o = PlaceOptions(arch, read, place);
        o.chunk = place[4] == 0 ? 64 : 7;
        o.threads = place[4] == 0 ? 2 : 1;
        if (place[4] == 0) o.place = PlaceChoice::kStream;
        o.sequences = o.logit_rows = 2;
        auto engine = OpenOrFail(o);
        ASSERT_NE(engine, nullptr);
        const std::string what = std::string(arch) + " " + read + " " + place;
        EXPECT_EQ(PromptAndTokens(*engine, 0, tokens, 170), reference) << what;
        EXPECT_GT(engine->placed_stats().bytes_written, 0u);
        EXPECT_GT(engine->placed_stats().rows, 0u);
        // A short prompt, all of whose rows may be read, and a long answer.
        engine->Clear(0);
        engine->Clear(1);
        testing::ExpectSameInABatch(
            *engine, tokens, [&](size_t i) { return reference[i - 169]; }, what);
      }
    }
  }
}

TEST(EnginePlace, SequencesBeginAnew) {
  EngineOptions o = PlaceOptions("qwen2", kPlaceReads[0], "disk:hot=0,readers=2");
  SNUG_NEED(o.model_path);
  o.sequences = 2;
  auto engine = OpenOrFail(o);
  testing::ExpectFullContextsFit(*engine, "");
  engine->Clear(0);
  engine->Clear(1);
  testing::ExpectCancelledPromptsLeaveNothing(*engine);
  testing::ExpectPrefixesAreReadAgain(*engine);
}

TEST(EnginePlace, ShortPromptsAndAllTypes) {
  testing::TinyModel model;
  model.dim = 64;  // heads of 32
  EngineOptions o = testing::TinyOptions("");
  o.model_path = model.Write();
  o.channels = testing::RankChannels(o, "place_types");
  o.logit_rows = 1;
  for (const KvType type :
       {KvType::kF16, KvType::kBF16, KvType::kF8E4M3, KvType::kQ8_0, KvType::kQ4_0}) {
    for (const char* read : {"quest:tokens=48,dense-layers=0,page=8",
                             "double-sparsity:tokens=40,dense-layers=0,channels=1/2"}) {
      o.key_type = o.value_type = type;
      o.read = *ParseRead(read);
      o.kv_place = nullptr;
      auto memory = OpenOrFail(o);
      const auto tokens = SomeTokens(220, memory->config().vocab);
      const auto reference = PromptAndTokens(*memory, 0, tokens, 10);
      o.kv_place = *ParsePlace("disk:hot=0");
      auto engine = OpenOrFail(o);
      ASSERT_NE(engine, nullptr);
      EXPECT_EQ(PromptAndTokens(*engine, 0, tokens, 10), reference) << KvTypeName(type) << read;
    }
  }
}

// A prompt after an answer sees the rows that were moved.
TEST(EnginePlace, PromptsGoOnFromMovedRows) {
  for (const char* arch : kPlaceArchs) {
    SNUG_NEED(testing::TinyOptions(arch).model_path);
    std::vector<std::vector<float>> both[2];
    for (const char* place : {"memory", "disk:hot=0"}) {
      auto engine = OpenOrFail(PlaceOptions(arch, kPlaceReads[1], place));
      const auto tokens = SomeTokens(250, engine->config().vocab);
      auto& rows = both[place[0] == 'm' ? 0 : 1];
      rows = PromptAndTokens(*engine, 0, std::span(tokens).first(150), 128);
      const auto more = PromptAndTokens(*engine, 0, std::span(tokens).subspan(150), 60);
      rows.insert(rows.end(), more.begin(), more.end());
    }
    EXPECT_EQ(both[0], both[1]) << arch;
  }
}

TEST(EnginePlace, LedgerHoldsWhatThePlanSays) {
  for (const char* arch : kPlaceArchs) {
    SNUG_NEED(testing::TinyOptions(arch).model_path);
    for (const char* read : kPlaceReads) {
      EngineOptions o = PlaceOptions(arch, read, "disk:hot=0,readers=2");
      o.sequences = 2;
      auto engine = OpenOrFail(o);
      ASSERT_NE(engine, nullptr);
      testing::ExpectLedgerHoldsThePlan(*engine, std::string(arch) + " " + read);
      const KvLayout& kv = engine->cache().layout();
      uint32_t placed = 0;
      for (uint32_t l = 0; l < kv.layers; ++l) placed += kv.window[l] == 0 && kv.Reads(l) ? 1 : 0;
      EXPECT_EQ(engine->plan().kv_disk_bytes,
                2 * placed * kv.kv_heads * 4 * kv.placed().tile_bytes());
    }
  }
}

// What is left of 8192 tokens of a layer: the index, few rows, and one layer's prompt.
TEST(EnginePlace, LongContextsTakeLessMemory) {
  EngineOptions o = testing::TinyOptions("");
  testing::TinyModel model;
  model.layers = 8;
  model.dim = 64;
  model.context = 8192;
  o.model_path = model.Write();
  o.context = 8192;
  o.logit_rows = 1;
  o.read = *ParseRead("quest:tokens=1/64,dense-layers=0");
  const auto memory = PlanFile(o);
  o.kv_place = *ParsePlace("disk:hot=0");
  const auto disk = PlanFile(o);
  ASSERT_TRUE(memory.ok() && disk.ok());
  EXPECT_LT(disk->kv_bytes, memory->kv_bytes / 2);
  EXPECT_GE(disk->kv_disk_bytes, 8192u * 8 * 2 * 64);
}

TEST(EnginePlace, MadeUpRowsAreMovedToo) {
  EngineOptions o = PlaceOptions("qwen2", kPlaceReads[0], "disk:hot=0");
  SNUG_NEED(o.model_path);
  auto engine = OpenOrFail(o);
  ASSERT_TRUE(engine->FillCache(0, 200).ok());
  EXPECT_GT(engine->placed_stats().bytes_written, 0u);
  const auto tokens = SomeTokens(20, engine->config().vocab);
  for (const Token t : tokens) {
    const StepItem item{0, {&t, 1}, StepItem::Logits::kLast};
    ASSERT_TRUE(engine->Step({&item, 1}).ok());
    for (const float logit : engine->logits(0)) ASSERT_TRUE(std::isfinite(logit));
  }
  EXPECT_GT(engine->placed_stats().rows, 0u);
}

// A step that the disk fails is as if it had not been, with weights in memory or streamed.
TEST(EnginePlace, DiskErrorsEndAStepAndNoMore) {
  for (const PlaceChoice weights : {PlaceChoice::kResident, PlaceChoice::kStream}) {
    EngineOptions o = PlaceOptions("qwen2", kPlaceReads[2], "memory");
    SNUG_NEED(o.model_path);
    auto memory = OpenOrFail(o);
    const auto tokens = SomeTokens(200, memory->config().vocab);
    const auto reference = PromptAndTokens(*memory, 0, tokens, 128);
    o = PlaceOptions("qwen2", kPlaceReads[2], "disk:hot=0");
    o.place = weights;
    auto engine = OpenOrFail(o);
    {
      const testing::BrokenFile full(o.kv_folder, "/dev/full");
      const Status status = engine->Prefill(0, std::span(tokens).first(128), nullptr);
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.error().code, Code::kIo);
      EXPECT_EQ(engine->length(0), 0u);
    }
    ASSERT_TRUE(engine->Prefill(0, std::span(tokens).first(128), nullptr).ok());
    for (size_t i = 128; i < tokens.size(); ++i) {
      const StepItem item{0, std::span(tokens).subspan(i, 1), StepItem::Logits::kLast};
      // Reads fail at 150, the writing of the tile that is full at 192 (and what is read before).
      if (i == 150 || i == 192) {
        const testing::BrokenFile broken(o.kv_folder, i == 150 ? "/dev/null" : "/dev/full");
        const Status status = engine->Step({&item, 1});
        ASSERT_FALSE(status.ok()) << i;
        EXPECT_EQ(status.error().code, Code::kIo);
        EXPECT_EQ(engine->length(0), i);
      }
      ASSERT_TRUE(engine->Step({&item, 1}).ok()) << i;
      EXPECT_TRUE(testing::SameBits(engine->logits(0), reference[i - 127])) << i;
    }
  }
}

TEST(EnginePlace, RefusedByName) {
  const std::string disk = "--kv-place disk";
  EngineOptions o = PlaceOptions("llama", "quest", "disk");
  SNUG_NEED(o.model_path);
  o.lookup = true;
  testing::ExpectRefused(o, {disk, "rolled back"});
  o.lookup = false;
  o.keep = *ParseKeep("h2o");
  testing::ExpectRefused(o, {disk, "--kv-keep h2o"});
  o.keep = nullptr;
  o.codec = *ParseCodec("kivi:residual=32,group=16");
  testing::ExpectRefused(o, {disk, "--kv kivi"});
  o.codec = nullptr;
  o.read = *ParseRead("dhsa");
  testing::ExpectRefused(o, {disk, "all rows again", "--kv-read dhsa"});
  o.read = nullptr;
  testing::ExpectRefused(o, {disk, "all rows again"});
  o.share = *ParseShare("minicache:start=0");
  testing::ExpectRefused(o, {disk, "--kv-share minicache"});
  o = PlaceOptions("llama", "quest", "disk");
  o.kv_folder = testing::TempDir() + "/none";
  const auto engine = Engine::Open(o);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.error().code, Code::kUsage);
  o.kv_folder = std::string(kPlaceFolder);
  auto open = OpenOrFail(o);
  const auto tokens = SomeTokens(100, open->config().vocab);
  ASSERT_TRUE(open->Prefill(0, tokens, nullptr).ok());
  EXPECT_EQ(open->Rollback(0, 50).error().code, Code::kUsage);
  const StepItem two{0, std::span(tokens).first(2), StepItem::Logits::kLast};
  EXPECT_EQ(open->Step({&two, 1}).error().code, Code::kUsage);
}

}  // namespace
}  // namespace snug
