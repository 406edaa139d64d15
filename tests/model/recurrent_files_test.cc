// Files of recurrent architectures with wrong sizes and missing tensors: each is an error that
// names what is wrong, before a weight is read.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "base/file.h"
#include "engine/engine.h"
#include "testing.h"

namespace snug {
namespace {

std::string Source(const std::string& model) {
  return testing::SourcePath("tests/data/models/" + model + ".gguf");
}

EngineOptions Options(const std::string& path) {
  EngineOptions o;
  o.model_path = path;
  o.tokenizer = false;
  o.budget.bytes = 256 * kMiB;
  o.base_bytes = 24 * kMiB;
  o.context = 32;
  o.threads = 1;
  return o;
}

// Opens the model after `change` to its bytes.
template <class F>
Result<std::unique_ptr<Engine>> OpenChanged(const std::string& model, const F& change) {
  std::string bytes = *ReadWholeFile(Source(model), 1 << 22);
  change(bytes);
  const std::string path = testing::TempDir() + "/m.gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  return Engine::Open(Options(path));
}

// Where what follows a name of the file begins.
size_t Behind(const std::string& bytes, const std::string& name) {
  const uint64_t n = name.size();
  const std::string text = std::string(reinterpret_cast<const char*>(&n), 8) + name;
  const size_t at = bytes.find(text);
  EXPECT_NE(at, std::string::npos) << name;
  return at + text.size();
}

struct Fault {
  const char *model, *key;
  uint32_t value;
  const char* word;  // of the message
};
constexpr uint32_t kHuge = UINT32_MAX;

TEST(RecurrentFiles, WrongSizesAreNamed) {
  const Fault kFaults[] = {
      {"falcon-mamba", "mamba.ssm.conv_kernel", 0, "conv_kernel = 0"},
      {"falcon-mamba", "mamba.ssm.conv_kernel", 1, "conv_kernel = 1"},
      {"falcon-mamba", "mamba.ssm.conv_kernel", kHuge, "conv_kernel"},
      {"falcon-mamba", "mamba.ssm.conv_kernel", 5, "ssm_conv1d.weight is"},
      {"falcon-mamba", "mamba.ssm.state_size", 0, "state_size = 0"},
      {"falcon-mamba", "mamba.ssm.state_size", kHuge, "state_size"},
      {"falcon-mamba", "mamba.ssm.state_size", 6, "ssm_x.weight is"},
      {"falcon-mamba", "mamba.ssm.inner_size", 0, "inner_size = 0"},
      {"falcon-mamba", "mamba.ssm.inner_size", kHuge, "inner_size"},
      {"falcon-mamba", "mamba.ssm.inner_size", 1 << 20, "ssm_in.weight is"},
      {"falcon-mamba", "mamba.ssm.time_step_rank", 0, "time_step_rank = 0"},
      {"falcon-mamba", "mamba.ssm.time_step_rank", kHuge, "time_step_rank"},
      {"mamba2-groups", "mamba2.ssm.conv_kernel", 1, "conv_kernel = 1"},
      {"mamba2-groups", "mamba2.ssm.state_size", 0, "state_size = 0"},
      {"mamba2-groups", "mamba2.ssm.state_size", 4096, "ssm_in.weight is"},
      {"mamba2-groups", "mamba2.ssm.time_step_rank", 0, "time_step_rank = 0"},
      {"mamba2-groups", "mamba2.ssm.time_step_rank", 5, "5 heads"},
      {"mamba2-groups", "mamba2.ssm.group_count", 0, "group_count = 0"},
      {"mamba2-groups", "mamba2.ssm.group_count", 4, "4 groups"},
      {"mamba2-groups", "mamba2.ssm.group_count", kHuge, "group_count"},
      {"mamba2-groups", "mamba2.ssm.inner_size", 73, "73 channels"},
      {"qwen3next", "qwen3next.ssm.conv_kernel", 0, "conv_kernel = 0"},
      {"qwen3next", "qwen3next.ssm.conv_kernel", 1, "conv_kernel = 1"},
      {"qwen3next", "qwen3next.ssm.state_size", 0, "state_size = 0"},
      {"qwen3next", "qwen3next.ssm.state_size", kHuge, "state_size"},
      {"qwen3next", "qwen3next.ssm.state_size", 7, "attn_qkv.weight is"},
      {"qwen3next", "qwen3next.ssm.inner_size", 66, "attn_qkv.weight is"},
      {"qwen3next", "qwen3next.ssm.inner_size", 61, "61 channels"},
      {"qwen3next", "qwen3next.ssm.time_step_rank", 7, "7 heads"},
      {"qwen3next", "qwen3next.ssm.group_count", 4, "4 groups"},
      {"qwen3next", "qwen3next.ssm.group_count", 0, "group_count = 0"},
      {"qwen3next", "qwen3next.rope.dimension_count", 13, "dimension_count"},
      {"qwen3next", "qwen3next.expert_count", 0, "expert_count = 0"},
      {"qwen3next", "qwen3next.expert_count", 6, "ffn_gate_inp.weight is"},
      {"qwen3next", "qwen3next.expert_used_count", 6, "expert_used_count = 6"},
      {"qwen3next", "qwen3next.expert_shared_feed_forward_length", 0, "= 0 is outside"},
      {"qwen3next", "qwen3next.expert_shared_feed_forward_length", 19, "ffn_gate_shexp.weight is"},
      {"qwen3next", "qwen3next.block_count", 5, "recurrent_layers has 4 flags for 5 layers"},
  };
  for (const Fault& f : kFaults) {
    const auto engine = OpenChanged(f.model, [&](std::string& bytes) {
      std::memcpy(&bytes[Behind(bytes, f.key) + 4], &f.value, 4);
    });
    ASSERT_FALSE(engine.ok()) << f.key << " = " << f.value;
    EXPECT_EQ(engine.error().code, Code::kBadFile) << f.key << " = " << f.value;
    EXPECT_NE(engine.error().message.find(f.word), std::string::npos)
        << f.key << " = " << f.value << ": " << engine.error().message;
  }
}

// Every tensor but an embedding's stand-in is needed.
TEST(RecurrentFiles, MissingTensorsAreNamed) {
  for (const char* model : {"falcon-mamba", "mamba2-groups", "qwen3next"}) {
    const auto file = ModelFile::Open(Source(model));
    ASSERT_TRUE(file.ok()) << file.error().message;
    for (const TensorInfo& t : (*file)->tensors()) {
      // A model without a head of its own is tied; a shared expert may have no gate.
      if (t.name == "output.weight" || t.name.find("inp_shexp") != std::string::npos) continue;
      const auto engine =
          OpenChanged(model, [&](std::string& bytes) { bytes[Behind(bytes, t.name) - 1] = '?'; });
      ASSERT_FALSE(engine.ok()) << model << " " << t.name;
      EXPECT_EQ(engine.error().code, Code::kBadFile) << t.name;
      EXPECT_NE(engine.error().message.find("tensor " + t.name + " is missing"), std::string::npos)
          << engine.error().message;
    }
  }
}

// Layers that have another kind's tensors, and joined ones of an early converter.
TEST(RecurrentFiles, LayersOfTheOtherKindAreNamed) {
  for (size_t layer = 0; layer < 4; ++layer) {
    const auto engine = OpenChanged("qwen3next", [&](std::string& bytes) {
      // An array: its type, its elements' type, their number, then a byte for each flag.
      char& flag = bytes[Behind(bytes, "qwen3next.attention.recurrent_layers") + 16 + layer];
      flag = static_cast<char>(flag == 0);
    });
    ASSERT_FALSE(engine.ok());
    EXPECT_EQ(engine.error().code, Code::kBadFile);
    EXPECT_NE(engine.error().message.find(std::string("blk.") + std::to_string(layer)),
              std::string::npos)
        << engine.error().message;
  }
  const auto joined = OpenChanged("qwen3next", [](std::string& bytes) {
    const std::string name = "blk.0.ssm_ba.weight";
    bytes.replace(Behind(bytes, name) - name.size(), name.size(), "blk.0.ssm_in.weight");
  });
  ASSERT_FALSE(joined.ok());
  EXPECT_NE(joined.error().message.find("early converter"), std::string::npos)
      << joined.error().message;
}

// Any byte ahead of the weights may be wrong: a plan or a typed error, and a run that ends.
TEST(RecurrentFiles, EveryDamagedByteIsSurvived) {
  for (const char* model : {"falcon-mamba", "mamba2-groups", "qwen3next"}) {
    const auto file = ModelFile::Open(Source(model));
    ASSERT_TRUE(file.ok());
    uint64_t data = UINT64_MAX;
    for (const TensorInfo& t : (*file)->tensors()) data = std::min(data, t.offset);
    const std::string whole = *ReadWholeFile(Source(model), 1 << 22);
    const std::string path = testing::TempDir() + "/m.gguf";
    size_t ran = 0;
    for (size_t i = 0; i < data; i += 7) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ (i % 2 == 0 ? 0xff : 0x04));
      std::ofstream(path, std::ios::binary) << bytes;
      auto engine = Engine::Open(Options(path));
      if (!engine.ok()) {
        EXPECT_FALSE(engine.error().message.empty());
        continue;
      }
      const Token tokens[] = {1, 2, 3};
      const StepItem item{0, tokens, StepItem::Logits::kLast};
      ran += (*engine)->Step({&item, 1}).ok() ? 1 : 0;
    }
    EXPECT_GT(ran, 0u) << model;
  }
}

}  // namespace
}  // namespace snug
