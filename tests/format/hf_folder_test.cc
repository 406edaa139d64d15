// Hugging Face folders against the GGUF files that an independent converter made of them, spellings
// of all ages, and every fault a folder can have.
#include "format/hf_folder.h"

#include <gtest/gtest.h>

#include <functional>

#include "format/gguf.h"
#include "format/tensor_rows.h"
#include "hf_testing.h"

namespace snug {
namespace {

using testing::Counting;
using testing::HfTensorData;
using testing::MakeTensor;
using testing::WriteSafetensors;
using testing::WriteText;

std::vector<float> Values(const ModelFile& file, const TensorInfo& t) {
  std::vector<float> values(t.rows() * t.cols());
  std::vector<uint8_t> buffer(RowBufferBytes(t));
  for (uint64_t r = 0; r < t.rows(); ++r)
    EXPECT_TRUE(ReadRow(file.files(), t, r, buffer, &values[r * t.cols()]).ok());
  return values;
}

// Rows of a head with the halves of each rotary pair apart, from rows that have them side by side.
std::vector<float> HalvesApart(const std::vector<float>& rows, uint64_t cols, uint64_t head) {
  std::vector<float> out(rows.size());
  for (uint64_t r = 0; r < rows.size() / cols; ++r) {
    const uint64_t i = r % head;
    const uint64_t to = r - i + i / 2 + (i % 2) * (head / 2);
    std::copy_n(&rows[r * cols], cols, &out[to * cols]);
  }
  return out;
}

class HfGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(HfGolden, FolderIsWhatItsGgufIs) {
  const std::string path = testing::GoldenPath(std::string("tiny/") + GetParam());
  SNUG_NEED(path + "/model.gguf");
  auto gguf = GgufFile::Open(path + "/model.gguf");
  ASSERT_TRUE(gguf.ok()) << gguf.error().message;
  auto folder = HfFolder::Open(path);
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  const std::string arch = *gguf->GetString("general.architecture");
  const bool apart = folder->Has(arch + ".rope.interleaved");
  EXPECT_EQ(gguf->tensors().size(), folder->tensors().size());
  for (const TensorInfo& want : gguf->tensors()) {
    const TensorInfo* got = folder->Find(want.name);
    ASSERT_NE(got, nullptr) << want.name;
    EXPECT_EQ(got->rows(), want.rows()) << want.name;
    EXPECT_EQ(got->cols(), want.cols()) << want.name;
    std::vector<float> expected = Values(*gguf, want);
    if (apart && (want.name.ends_with("attn_q.weight") || want.name.ends_with("attn_k.weight"))) {
      expected = HalvesApart(expected, want.cols(), *gguf->GetUint(arch + ".rope.dimension_count"));
    }
    const std::vector<float> values = Values(*folder, *got);
    ASSERT_EQ(values.size(), expected.size());
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_NEAR(values[i], expected[i], 2e-7 * std::abs(expected[i])) << want.name << " " << i;
  }
  // Facts that its converter gives models without attention or experts, and a window of 0.
  const std::vector<std::string> kOwn = {"mamba.feed_forward_length",
                                         "mamba.attention.head_count",
                                         "mamba2.feed_forward_length",
                                         "mamba2.attention.head_count",
                                         "mamba.ssm.dt_b_c_rms",
                                         "phi3.attention.sliding_window",
                                         "phi3.rope.scaling.original_context_length"};
  for (const auto& k : gguf->Describe()) {
    if (!k.key.starts_with(arch + ".")) continue;
    if (std::find(kOwn.begin(), kOwn.end(), k.key) != kOwn.end()) continue;
    if (const auto text = gguf->GetString(k.key)) {
      EXPECT_EQ(folder->GetString(k.key), text) << k.key;
    } else {
      ASSERT_TRUE(folder->GetFloat(k.key)) << k.key;
      EXPECT_FLOAT_EQ(static_cast<float>(*folder->GetFloat(k.key)),
                      static_cast<float>(*gguf->GetFloat(k.key)))
          << k.key;
    }
  }
  EXPECT_EQ(folder->GetUint("tokenizer.ggml.bos_token_id"), 0u);
  EXPECT_EQ(folder->GetUint("tokenizer.ggml.eos_token_id"), 1u);
  EXPECT_EQ(folder->GetUint("tokenizer.ggml.padding_token_id"), 2u);
  EXPECT_EQ(folder->tokenizer_json(), path + "/tokenizer.json");
}

INSTANTIATE_TEST_SUITE_P(Tiny, HfGolden,
                         ::testing::Values("gemma2", "gemma3", "llama", "llama-yarn", "llama3-rope",
                                           "mamba", "mamba2", "mixtral", "olmoe", "phi3", "qwen2",
                                           "qwen3", "qwen3moe", "smollm3"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// A folder that opens, to be changed by each test.
struct Folder {
  std::string path = testing::TempDir();
  Json config = {{"model_type", "llama"},      {"hidden_size", 8},       {"num_hidden_layers", 1},
                 {"num_attention_heads", 2},   {"intermediate_size", 4}, {"rms_norm_eps", 1e-5},
                 {"tie_word_embeddings", true}};
  std::vector<HfTensorData> tensors = {Counting("model.embed_tokens.weight", "F32", {3, 8}),
                                       Counting("model.norm.weight", "F32", {8})};
  Result<HfFolder> Open() const {
    if (!config.is_null()) WriteText(path + "/config.json", DumpJson(config));
    if (!tensors.empty()) WriteSafetensors(path + "/model.safetensors", tensors);
    return HfFolder::Open(path);
  }
};

// Everything but the name, which is the folder's.
std::string Facts(const ModelFile& file) {
  std::string text;
  for (const auto& k : file.Describe())
    if (k.key != "general.name") text += k.key + "=" + k.value + "\n";
  return text;
}

TEST(HfFolder, OldAndNewSpellingsSayTheSame) {
  const std::pair<Json, Json> kSpellings[] = {
      {{{"rope_theta", 5e5}, {"torch_dtype", "float32"}},
       {{"rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "default"}}},
        {"dtype", "float32"}}},
      {{{"rope_theta", 1e4}, {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}},
       {{"rope_parameters", {{"rope_theta", 1e4}, {"rope_type", "linear"}, {"factor", 2.0}}}}},
      {{{"rope_theta", 1e4},
        {"rope_scaling",
         {{"rope_type", "yarn"},
          {"factor", 4.0},
          {"attention_factor", 1.5},
          {"original_max_position_embeddings", 64}}}},
       {{"rope_parameters",
         {{"rope_theta", 1e4},
          {"rope_type", "yarn"},
          {"factor", 4.0},
          {"attention_factor", 1.5},
          {"original_max_position_embeddings", 64}}}}},
      {{{"rope_theta", 1e4}, {"rope_scaling", nullptr}, {"partial_rotary_factor", 0.5}},
       {{"rope_parameters", {{"rope_theta", 1e4}, {"partial_rotary_factor", 0.5}}}}},
  };
  for (const auto& [old_keys, new_keys] : kSpellings) {
    Folder a, b;
    a.config.update(old_keys);
    b.config.update(new_keys);
    auto first = a.Open(), second = b.Open();
    ASSERT_TRUE(first.ok()) << first.error().message;
    ASSERT_TRUE(second.ok()) << second.error().message;
    EXPECT_EQ(Facts(*first), Facts(*second));
    EXPECT_TRUE(first->Has("llama.rope.freq_base"));
  }
}

TEST(HfFolder, Gemma3InBothSpellingsAndAsPartOfALargerModel) {
  const Json base = {{"model_type", "gemma3_text"}, {"hidden_size", 8}, {"num_hidden_layers", 6},
                     {"intermediate_size", 4},      {"head_dim", 4},    {"num_attention_heads", 2},
                     {"sliding_window", 512},       {"vocab_size", 3}};
  Folder a, b, c;
  a.config = b.config = c.config = base;
  a.config.update({{"rope_theta", 1e6},
                   {"rope_local_base_freq", 5e4},
                   {"sliding_window_pattern", 6},
                   {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}});
  b.config.update(
      {{"layer_types",
        {"sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
         "sliding_attention", "full_attention"}},
       {"rope_parameters",
        {{"full_attention", {{"rope_theta", 1e6}, {"rope_type", "linear"}, {"factor", 8.0}}},
         {"sliding_attention", {{"rope_theta", 5e4}, {"rope_type", "default"}}}}}});
  c.config = {
      {"model_type", "gemma3"}, {"text_config", a.config}, {"vision_config", Json::object()}};
  c.tensors = {Counting("language_model.model.embed_tokens.weight", "BF16", {3, 8}),
               Counting("language_model.model.norm.weight", "BF16", {8}),
               Counting("vision_tower.x.weight", "BF16", {2}),
               Counting("multi_modal_projector.y.weight", "BF16", {2})};
  auto first = a.Open(), second = b.Open(), third = c.Open();
  ASSERT_TRUE(first.ok()) << first.error().message;
  ASSERT_TRUE(second.ok()) << second.error().message;
  ASSERT_TRUE(third.ok()) << third.error().message;
  for (const HfFolder* f : {&*first, &*second, &*third}) {
    EXPECT_EQ(f->GetUint("gemma3.attention.sliding_window_pattern"), 6u);
    EXPECT_EQ(f->GetFloat("gemma3.rope.freq_base"), 1e6);
    EXPECT_EQ(f->GetFloat("gemma3.rope.freq_base_swa"), 5e4);
    EXPECT_EQ(f->GetFloat("gemma3.rope.scaling.factor"), 8.0);
    EXPECT_EQ(f->GetUint("gemma3.context_length"), 131072u);  // left out: the family's
    EXPECT_EQ(f->tensors().size(), 2u);
    EXPECT_EQ(Values(*f, *f->Find("output_norm.weight")),
              (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
  }
  EXPECT_EQ(first->Find("output_norm.weight")->type, DType::kF32);
  EXPECT_EQ(third->Find("token_embd.weight")->type, DType::kBF16);
}

TEST(HfFolder, WindowsOfMistral) {
  Folder f;
  f.config.update({{"model_type", "mistral"}, {"sliding_window", 32}});
  auto with = f.Open();
  ASSERT_TRUE(with.ok()) << with.error().message;
  EXPECT_EQ(with->GetUint("llama.attention.sliding_window"), 32u);
  f.config["sliding_window"] = nullptr;
  EXPECT_FALSE(f.Open()->Has("llama.attention.sliding_window"));
  f.config.erase("sliding_window");
  EXPECT_EQ(f.Open()->GetUint("llama.attention.sliding_window"), 4096u);
}

TEST(HfFolder, LayersWithAWindowByPeriodOrOneByOne) {
  Folder f;
  f.config.update({{"model_type", "mistral"}, {"sliding_window", 32}});
  const std::string key = "llama.attention.sliding_window_pattern", s = "sliding_attention",
                    a = "full_attention";
  f.config["layer_types"] = {s, a, s, a};
  EXPECT_EQ(f.Open()->GetUint(key), 2u);
  f.config["layer_types"] = {s, s, s};
  EXPECT_EQ(f.Open()->GetUint(key), 0u);
  f.config["layer_types"] = {a, a};
  EXPECT_FALSE(f.Open()->Has(key));
  f.config["layer_types"] = {s, a, a};
  auto file = f.Open();
  std::vector<int32_t> flags(3);
  ASSERT_TRUE(file->ReadArray(key, flags.data()).ok());
  EXPECT_EQ(flags, (std::vector<int32_t>{1, 0, 0}));
}

TEST(HfFolder, ShardsWithAnIndex) {
  Folder f;
  const std::vector<HfTensorData> tensors = std::move(f.tensors);
  f.tensors.clear();
  WriteSafetensors(f.path + "/model-00001-of-00002.safetensors", {tensors[0]});
  WriteSafetensors(f.path + "/model-00002-of-00002.safetensors", {tensors[1]});
  const std::string index = f.path + "/model.safetensors.index.json";
  const Json good = {{"metadata", {{"total_size", 128}}},
                     {"weight_map",
                      {{tensors[0].name, "model-00001-of-00002.safetensors"},
                       {tensors[1].name, "model-00002-of-00002.safetensors"}}}};
  WriteText(index, DumpJson(good));
  auto file = f.Open();
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->paths().size(), 2u);
  EXPECT_EQ(Values(*file, *file->Find("output_norm.weight")),
            (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));

  const std::pair<std::function<void(Json&)>, const char*> kFaults[] = {
      {[](Json& j) { j.erase("weight_map"); }, "weight_map"},
      {[](Json& j) {
         j["weight_map"]["a"] = {{"file", "x"}};
       },
       "weight_map['a']"},
      {[](Json& j) { j["weight_map"]["a"] = "../model-00001-of-00002.safetensors"; }, "'a'"},
      {[](Json& j) { j["weight_map"]["a"] = "model-00001-of-00002.safetensors"; }, "a is missing"},
      {[](Json& j) { j["weight_map"]["a"] = "absent.safetensors"; }, "absent.safetensors"},
  };
  for (const auto& [break_it, word] : kFaults) {
    Json bad = good;
    break_it(bad);
    WriteText(index, DumpJson(bad));
    auto broken = f.Open();
    ASSERT_FALSE(broken.ok()) << word;
    EXPECT_NE(broken.error().message.find(word), std::string::npos) << broken.error().message;
  }
}

TEST(HfFolder, TokensThatEndAndTemplates) {
  Folder f;
  WriteText(f.path + "/generation_config.json", R"({"eos_token_id": [7, 9], "bos_token_id": 4})");
  WriteText(f.path + "/tokenizer_config.json",
            R"({"eos_token": {"content": "<end>"}, "add_bos_token": true, "unk_token": "<u>",
                "added_tokens_decoder": {"5": {"content": "<end>"}, "6": {"content": "<u>"}},
                "chat_template": [{"name": "default", "template": "inline"},
                                  {"name": "tool_use", "template": "tools"}]})");
  auto file = f.Open();
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->GetUint("tokenizer.ggml.eos_token_id"), 5u);
  EXPECT_EQ(file->GetUint("tokenizer.ggml.bos_token_id"), 4u);
  EXPECT_EQ(file->GetUint("tokenizer.ggml.unknown_token_id"), 6u);
  EXPECT_EQ(file->GetBool("tokenizer.ggml.add_bos_token"), true);
  std::vector<int32_t> ends(3);
  ASSERT_EQ(file->GetArray("tokenizer.ggml.eog_token_ids")->count, 3u);
  ASSERT_TRUE(file->ReadArray("tokenizer.ggml.eog_token_ids", ends.data()).ok());
  EXPECT_EQ(ends, (std::vector<int32_t>{5, 7, 9}));
  EXPECT_EQ(file->SpecialText("eos"), "<end>");
  EXPECT_EQ(file->SpecialText("unknown"), "<u>");
  EXPECT_EQ(file->SpecialText("bos"), std::nullopt);
  EXPECT_EQ(file->GetString("tokenizer.chat_template"), "inline");
  EXPECT_EQ(file->GetString("tokenizer.chat_template.tool_use"), "tools");
  EXPECT_EQ(file->tokenizer_json(), std::nullopt);

  // The file of its own wins, and tokenizer.json knows ids where nothing else does.
  WriteText(f.path + "/chat_template.jinja", "own");
  WriteText(f.path + "/tokenizer_config.json", R"({"eos_token": "<stop>", "bos_token": null})");
  WriteText(f.path + "/tokenizer.json",
            R"({"added_tokens": [{"id": 3, "content": "<stop>"}], "model": )");
  file = f.Open();
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->GetString("tokenizer.chat_template"), "own");
  EXPECT_EQ(file->GetUint("tokenizer.ggml.eos_token_id"), 3u);
}

TEST(HfFolder, InfinitiesOfPythonAreNulls) {
  Folder f;
  const std::string config = DumpJson(f.config);
  f.config = nullptr;
  WriteText(f.path + "/config.json",
            config.substr(0, config.size() - 1) +
                R"(, "time_step_limit": [0.0, Infinity], "a": -Infinity, "b": NaN,
                   "c": "Infinity \" NaN"})");
  auto file = f.Open();
  EXPECT_TRUE(file.ok()) << file.error().message;
}

// A Qwen3-Next of one layer: 2 key heads of 3 and 4 value heads of 1, so that a group of
// in_proj_qkvz has 3 rows of queries, 3 of keys, 2 of values and 2 of gates.
Folder Qwen3Next() {
  Folder f;
  f.config = {{"model_type", "qwen3_next"}, {"hidden_size", 2},
              {"num_hidden_layers", 1},     {"num_attention_heads", 2},
              {"intermediate_size", 4},     {"linear_num_key_heads", 2},
              {"linear_key_head_dim", 3},   {"linear_num_value_heads", 4},
              {"linear_value_head_dim", 1}, {"layer_types", {"linear_attention"}},
              {"tie_word_embeddings", true}};
  f.tensors = {Counting("model.embed_tokens.weight", "F32", {3, 2}),
               Counting("model.layers.0.input_layernorm.weight", "F32", {2}),
               Counting("model.layers.0.linear_attn.norm.weight", "F32", {1}, 5),
               Counting("model.layers.0.linear_attn.in_proj_qkvz.weight", "BF16", {20, 2})};
  return f;
}

TEST(HfFolder, GroupsOfQwen3NextComeApart) {
  auto file = Qwen3Next().Open();
  ASSERT_TRUE(file.ok()) << file.error().message;
  const auto rows = [&](const char* name, const std::vector<int>& expected) {
    const TensorInfo* t = file->Find(name);
    ASSERT_NE(t, nullptr) << name;
    ASSERT_EQ(t->rows(), expected.size()) << name;
    const std::vector<float> values = Values(*file, *t);
    for (size_t r = 0; r < expected.size(); ++r)
      EXPECT_EQ(values[2 * r], static_cast<float>(2 * expected[r])) << name << " " << r;
  };
  rows("blk.0.attn_qkv.weight", {0, 1, 2, 10, 11, 12, 3, 4, 5, 13, 14, 15, 6, 7, 16, 17});
  rows("blk.0.attn_gate.weight", {8, 9, 18, 19});
  EXPECT_EQ(file->Find("blk.0.attn_qkv.weight")->type, DType::kBF16);
  // Norms are stored less one, but for that of the delta rule.
  EXPECT_EQ(Values(*file, *file->Find("blk.0.attn_norm.weight"))[0], 1);
  EXPECT_EQ(Values(*file, *file->Find("blk.0.ssm_norm.weight"))[0], 5);
  EXPECT_EQ(file->GetUint("qwen3next.ssm.inner_size"), 4u);
}

TEST(HfFolder, LayersOfQwen3NextByPeriodOrOneByOne) {
  Folder f = Qwen3Next();
  f.config["num_hidden_layers"] = 4;
  f.config["full_attention_interval"] = 3;
  const std::string linear = "linear_attention", full = "full_attention";
  f.config["layer_types"] = {linear, full, linear, full};
  auto file = f.Open();
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->GetUint("qwen3next.full_attention_interval"), 2u);
  f.config["layer_types"] = {linear, full, linear, linear};
  file = f.Open();
  ASSERT_TRUE(file.ok()) << file.error().message;
  std::vector<int32_t> flags(4);
  ASSERT_TRUE(file->ReadArray("qwen3next.attention.recurrent_layers", flags.data()).ok());
  EXPECT_EQ(flags, (std::vector<int32_t>{1, 0, 1, 1}));
  f.config.erase("layer_types");
  file = f.Open();
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->GetUint("qwen3next.full_attention_interval"), 3u);
}

TEST(HfFolder, EachFaultIsNamed) {
  struct Fault {
    const char* word;
    std::function<void(Folder&)> make;
  };
  const Fault kFaults[] = {
      {"config.json", [](Folder& f) { f.config = nullptr; }},
      {"model_type", [](Folder& f) { f.config.erase("model_type"); }},
      {"'parrot' is not supported", [](Folder& f) { f.config["model_type"] = "parrot"; }},
      {"num_hidden_layers is missing", [](Folder& f) { f.config.erase("num_hidden_layers"); }},
      {"hidden_size is -8", [](Folder& f) { f.config["hidden_size"] = -8; }},
      {"hidden_size is \"8\"", [](Folder& f) { f.config["hidden_size"] = "8"; }},
      {"hidden_act is \"relu\"", [](Folder& f) { f.config["hidden_act"] = "relu"; }},
      {"'spiral' is not supported",
       [](Folder& f) {
         f.config["rope_scaling"] = {{"type", "spiral"}, {"factor", 2}};
       }},
      {"'yarn' needs a factor",
       [](Folder& f) {
         f.config["rope_scaling"] = {{"type", "yarn"}};
       }},
      {"needs low_freq_factor",
       [](Folder& f) {
         f.config["rope_scaling"] = {{"type", "llama3"}, {"factor", 8}};
       }},
      {"rope_parameters is [1]", [](Folder& f) { f.config["rope_parameters"] = Json{1}; }},
      {"partial_rotary_factor", [](Folder& f) { f.config["partial_rotary_factor"] = 3; }},
      {"lm_head.weight is missing", [](Folder& f) { f.config["tie_word_embeddings"] = false; }},
      {"holds neither", [](Folder& f) { f.tensors.clear(); }},
      {"unknown to architecture llama",
       [](Folder& f) { f.tensors.push_back(Counting("model.extra.weight", "F32", {1})); }},
      {"is F8_E4M3",
       [](Folder& f) { f.tensors[1] = Counting("model.norm.weight", "F8_E4M3", {8}); }},
      {"unexpected shape [8, 0]",
       [](Folder& f) {
         f.tensors[1] = MakeTensor("model.norm.weight", "F32", {8, 0}, {});
       }},
      {"two tensors that are output_norm.weight",
       [](Folder& f) {
         f.tensors.push_back(Counting("language_model.model.norm.weight", "F32", {8}));
       }},
      {"impossible layer",
       [](Folder& f) {
         f.tensors.push_back(Counting("model.layers.99999999.mlp.up_proj.weight", "F32", {4, 8}));
       }},
      {"expert 0 of blk.0.ffn_up_exps.weight has no weights",
       [](Folder& f) {
         f.config["model_type"] = "mixtral";
         f.tensors.push_back(
             Counting("model.layers.0.block_sparse_moe.experts.1.w3.weight", "F32", {4, 8}));
       }},
      {"experts of blk.0.ffn_up_exps.weight differ",
       [](Folder& f) {
         f.config["model_type"] = "mixtral";
         for (uint64_t e : {0, 1})
           f.tensors.push_back(Counting(
               "model.layers.0.block_sparse_moe.experts." + std::to_string(e) + ".w3.weight", "F32",
               {4 + e, 8}));
       }},
      {"in_proj_qkvz.weight has the unexpected shape [19, 2]",
       [](Folder& f) {
         f = Qwen3Next();
         f.tensors[3] = Counting("model.layers.0.linear_attn.in_proj_qkvz.weight", "F32", {19, 2});
       }},
      {"unexpected shape [40]",
       [](Folder& f) {
         f = Qwen3Next();
         f.tensors[3] = Counting("model.layers.0.linear_attn.in_proj_qkvz.weight", "F32", {40});
       }},
      {"3 key heads of 3",
       [](Folder& f) {
         f = Qwen3Next();
         f.config["linear_num_key_heads"] = 3;
       }},
      {"0 key heads of 3",
       [](Folder& f) {
         f = Qwen3Next();
         f.config["linear_num_key_heads"] = 0;
       }},
      {"linear_value_head_dim are impossible",
       [](Folder& f) {
         f = Qwen3Next();
         f.config["linear_value_head_dim"] = 4000000000;
       }},
      {"layer_types has 2 layers",
       [](Folder& f) {
         f = Qwen3Next();
         f.config["layer_types"] = {"linear_attention", "full_attention"};
       }},
      {"layer_types has \"lazy_attention\"",
       [](Folder& f) {
         f = Qwen3Next();
         f.config["layer_types"] = {"lazy_attention"};
       }},
      {"a time_step_limit",
       [](Folder& f) {
         f.config["model_type"] = "mamba2";
         f.config["time_step_limit"] = {0.1, 2.0};
       }},
      {"expand is impossible",
       [](Folder& f) {
         f.config["model_type"] = "mamba";
         f.config["expand"] = 65;
       }},
      {"eos_token_id is no token id", [](Folder& f) { f.config["eos_token_id"] = "end"; }},
      {"chat_template",
       [](Folder& f) { WriteText(f.path + "/tokenizer_config.json", R"({"chat_template": 3})"); }},
      {"no valid JSON", [](Folder& f) { WriteText(f.path + "/generation_config.json", "{"); }},
  };
  for (const Fault& fault : kFaults) {
    Folder f;
    fault.make(f);
    auto file = f.Open();
    ASSERT_FALSE(file.ok()) << fault.word;
    EXPECT_EQ(file.error().code, Code::kBadFile) << fault.word;
    EXPECT_NE(file.error().message.find(fault.word), std::string::npos) << file.error().message;
  }
}

// Any byte of the configuration may be wrong: the reader answers or refuses, and does not crash.
TEST(HfFolder, EveryDamagedByteIsSurvived) {
  Folder f;
  f.config["rope_scaling"] = {{"type", "yarn"}, {"factor", 2}};
  f.config["layer_types"] = {"full_attention"};
  const std::string whole = DumpJson(f.config);
  f.config = nullptr;
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char c : {'\0', '"', '9', '-', '}', '\xff'}) {
      std::string bad = whole;
      bad[i] = c;
      WriteText(f.path + "/config.json", bad);
      auto file = f.Open();
      EXPECT_TRUE(file.ok() || !file.error().message.empty());
    }
  }
}

}  // namespace
}  // namespace snug
