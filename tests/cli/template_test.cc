// snug template, and run --chat.
#include <gtest/gtest.h>

#include "cli/program.h"
#include "format/gguf_builder.h"
#include "tiny_model.h"

namespace snug {
namespace {

using testing::Outcome;
using testing::Snug;

std::string Write(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(Template, RendersAFileAndAnInput) {
  const std::string t = Write("t.jinja",
                              "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}"
                              "{% endfor %}{{ eos_token if add_generation_prompt }}\n");
  const std::string messages = R"([{"role": "user", "content": "Hé\n"}])";
  const std::string object =
      R"({"messages": )" + messages + R"(, "add_generation_prompt": false, "bos_token": "B"})";
  EXPECT_EQ(Snug({"template", t}, messages).out, "<s>[user] Hé\n</s>");
  EXPECT_EQ(Snug({"template", t, "--input", Write("c.json", object)}).out, "B[user] Hé\n");
  const Outcome json = Snug({"template", t, "--input", "-", "--json"}, messages);
  EXPECT_EQ(json.code, 0);
  EXPECT_EQ(json.json()["text"], "<s>[user] Hé\n</s>");
  EXPECT_TRUE(json.err.empty());
}

TEST(Template, WhatCannotBeRenderedEndsWith3) {
  const std::string good = Write("good.jinja", "{{ messages[0].content }}");
  const std::string bad = Write("bad.jinja", "a\n{% if %}");
  const std::string raises = Write("raises.jinja", "{{ raise_exception('not this') }}");
  const Outcome syntax = Snug({"template", bad, "--json"}, "[]");
  EXPECT_EQ(syntax.code, 3);
  EXPECT_EQ(syntax.error("code"), "bad_input");
  EXPECT_EQ(syntax.json()["error"]["values"]["line"], 2);
  const Outcome raised = Snug({"template", raises}, "[]");
  EXPECT_EQ(raised.code, 3);
  EXPECT_TRUE(raised.out.empty());
  EXPECT_NE(raised.err.find("not this"), std::string::npos);
  EXPECT_NE(raised.err.find("line 1, column"), std::string::npos);
  EXPECT_EQ(Snug({"template", good}, "{").code, 3);
  EXPECT_EQ(Snug({"template", good}, "5").code, 3);
  EXPECT_EQ(Snug({"template", good, "--input", "/nonexistent.json"}).code, 3);
  EXPECT_EQ(Snug({"template", "/nonexistent.jinja"}, "[]").code, 3);
  EXPECT_EQ(Snug({"template"}, "[]").code, 2);
}

std::string ModelWithTemplate(const std::string& text) {
  const std::string bytes = testing::GgufBuilder()
                                .Header(3, 0, 5)
                                .String("general.architecture", "llama")
                                .Strings("tokenizer.ggml.tokens", {"<unk>", "<bos>", "<eos>"})
                                .U32("tokenizer.ggml.bos_token_id", 1)
                                .U32("tokenizer.ggml.eos_token_id", 2)
                                .String("tokenizer.chat_template", text)
                                .bytes;
  return Write("m.gguf", bytes);
}

TEST(Template, TakesAModelsOwnWithItsTokens) {
  const std::string model =
      ModelWithTemplate("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ unk_token }}");
  EXPECT_EQ(Snug({"template", model}, R"([{"content": "x"}])").out, "<bos>x<eos>");
  const Outcome none = Snug({"template", testing::TinyModel().Write(), "--json"}, "[]");
  EXPECT_EQ(none.code, 3);
  EXPECT_NE(none.error("message").find("no chat template"), std::string::npos);
  EXPECT_FALSE(none.error("next").empty());
}

TEST(RunChat, NeedsATemplate) {
  const std::string model = testing::TinyModel().Write();
  const Outcome none = Snug({"run", model, "--chat", "-p", "x", "--memory", "128MiB", "--json"});
  EXPECT_EQ(none.code, 3);
  EXPECT_EQ(none.error("code"), "bad_input");
  EXPECT_NE(none.error("message").find("no chat template"), std::string::npos);
  EXPECT_EQ(Snug({"run", model, "--system", "x", "-p", "x"}).code, 2);
}

TEST(RunChat, WrapsThePromptAndAddsNoSecondBos) {
  const std::string model = testing::ModelPath(testing::kQwen);
  SNUG_NEED(model);
  const Outcome rendered = Snug(
      {"template", model},
      R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}])");
  ASSERT_EQ(rendered.code, 0) << rendered.err;
  EXPECT_EQ(rendered.out,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay hello.<|im_end|>\n"
            "<|im_start|>assistant\n");
  const Outcome tokens = Snug({"tokenize", model, "--json"}, rendered.out);
  const Outcome run = Snug({"run", model, "--chat", "--system", "Be brief.", "-p", "Say hello.",
                            "-n", "1", "-c", "128", "--memory", "1GiB", "--temp", "0", "--json"});
  ASSERT_EQ(run.code, 0) << run.out << run.err;
  EXPECT_EQ(run.json()["prompt_tokens"], tokens.json()["tokens"].size());
}

}  // namespace
}  // namespace snug
