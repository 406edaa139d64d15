#include "text/chat_template.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include "base/file.h"
#include "base/json.h"
#include "format/hf_testing.h"
#include "testing.h"

namespace snug {
namespace {

Result<std::string> Render(const std::string& source, const Json& input,
                           const TemplateLimits& limits = {}) {
  SNUG_ASSIGN(const ChatTemplate t, ChatTemplate::Parse(source, limits));
  return t.Render(input);
}

// The rendering, or the error's message.
std::string Shown(const std::string& source, const Json& input) {
  const auto text = Render(source, input);
  return text.ok() ? *text : text.error().message;
}

Json ReadJson(const std::string& path) {
  const auto text = ReadWholeFile(path, 64 << 20);
  EXPECT_TRUE(text.ok()) << path;
  auto json = ParseJson(text.ok() ? *text : "{}", path);
  EXPECT_TRUE(json.ok()) << path;
  return json.ok() ? *json : Json::object();
}

// ---- real templates

class GoldenTemplates : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTemplates, AsTransformersRendersThem) {
  const std::string base = testing::GoldenPath(std::string("templates/") + GetParam());
  SNUG_NEED(base + ".jinja");
  const auto source = ReadWholeFile(base + ".jinja", 1 << 20);
  ASSERT_TRUE(source.ok());
  const Json cases = ReadJson(testing::GoldenPath("templates/cases.json"));
  const Json golden = ReadJson(base + ".json");
  ASSERT_GT(cases.size(), 10u);
  const Json defaults = {{"add_generation_prompt", true}, {"bos_token", "<s>"},
                         {"eos_token", "</s>"},           {"unk_token", "<unk>"},
                         {"pad_token", "<pad>"},          {"now", "2026-01-02 03:04:05"}};
  for (const auto& [name, given] : cases.items()) {
    Json input = given;
    for (const auto& [key, value] : defaults.items()) {
      if (!input.contains(key)) input[key] = value;
    }
    const auto text = Render(*source, input);
    if (golden[name].contains("error")) {
      EXPECT_FALSE(text.ok()) << name << ": " << golden[name]["error"];
    } else {
      ASSERT_TRUE(text.ok()) << name << ": " << text.error().message;
      EXPECT_EQ(*text, golden[name]["text"].get<std::string>()) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Templates, GoldenTemplates,
    ::testing::Values("HuggingFaceTB-SmolLM3-3B", "LFM2-8B-A1B",
                      "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "Qwen-Qwen2.5-7B-Instruct",
                      "Qwen-Qwen3-0.6B", "Qwen3.5-4B", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
                      "google-gemma-2-2b-it", "google-gemma-4-31B-it", "ibm-granite-granite-4.0",
                      "llama-cpp-deepseek-r1", "meta-llama-Llama-3.1-8B-Instruct",
                      "meta-llama-Llama-3.2-3B-Instruct", "microsoft-Phi-3.5-mini-instruct",
                      "mistralai-Mistral-Nemo-Instruct-2407", "openai-gpt-oss-120b"),
    [](const auto& p) {
      std::string name = p.param;
      for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
      return name;
    });

// ---- small templates, each with what jinja2 makes of it (make_jinja_snippets.py)

class Snippets : public ::testing::TestWithParam<const char*> {};

TEST_P(Snippets, AsJinja2RendersThem) {
  static const Json data = ReadJson(testing::SourcePath("tests/data/jinja_snippets.json"));
  Json input = data["input"];
  input["now"] = "2026-01-02 03:04:05";
  size_t n = 0;
  for (const Json& c : data["cases"]) {
    if (c["subject"] != GetParam()) continue;
    ++n;
    const std::string source = c["template"].get<std::string>();
    const auto text = Render(source, input);
    if (c.contains("error")) {
      EXPECT_FALSE(text.ok()) << source << "\n gives " << *text << "\n not " << c["error"];
    } else if (!text.ok()) {
      ADD_FAILURE() << source << "\n " << text.error().message;
    } else {
      EXPECT_EQ(*text, c["text"].get<std::string>()) << source;
    }
  }
  EXPECT_GT(n, 5u);
}

INSTANTIATE_TEST_SUITE_P(Subjects, Snippets,
                         ::testing::Values("printing", "arithmetic", "comparison", "access",
                                           "conditional", "loops", "set", "macros", "tests",
                                           "text filters", "number filters", "sequence filters",
                                           "json", "str methods", "whitespace", "functions",
                                           "syntax errors"),
                         [](const auto& p) {
                           std::string name = p.param;
                           for (char& c : name) c = c == ' ' ? '_' : c;
                           return name;
                         });

// ---- errors

TEST(ChatTemplate, ErrorsNameLineAndColumn) {
  struct {
    const char* source;
    const char *line, *column;
    const char* message;
  } cases[] = {
      {"ab\n{{ 1 + missing }}", "2", "6", "'missing' is undefined"},
      {"ab\n  {% if x %}\n", "2", "13", "endif"},
      {"{{ 'é' + 5 }}", "1", "8", "can only concatenate str"},
      {"a\n\n{{ q.y.z }}", "3", "5", "'q' is undefined"},
      {"{% macro f(a) %}\n{{ a.b.c }}{% endmacro %}{{ f({}) }}", "2", "7", "has no attribute 'b'"},
      {"{% for a in [1] %}\n{% for a, b in [1] %}{% endfor %}{% endfor %}", "2", "4", "iterable"},
      {"\n{{ raise_exception('no ' ~ 1) }}", "2", "19", "no 1"},
      {"{{ [1]|nope }}", "1", "8", "nope"},
      {"{{ \n $ }}", "2", "2", "'$'"},
  };
  for (const auto& c : cases) {
    const auto result = Render(c.source, Json{{"x", nullptr}});
    ASSERT_FALSE(result.ok()) << c.source;
    const Error& e = result.error();
    EXPECT_EQ(e.code, Code::kBadInput);
    EXPECT_NE(e.message.find(c.message), std::string::npos) << e.message;
    EXPECT_NE(e.message.find(std::string("line ") + c.line + ", column " + c.column + ":"),
              std::string::npos)
        << c.source << ": " << e.message;
    EXPECT_EQ(e.values.size(), 2u);
  }
}

TEST(ChatTemplate, OneTemplateRendersAgainAndAgain) {
  const auto t = ChatTemplate::Parse("{% set ns = namespace(n=0) %}{% set ns.n = n %}{{ ns.n }}");
  ASSERT_TRUE(t.ok());
  for (int n = 0; n < 3; ++n) EXPECT_EQ(*t->Render(Json{{"n", n}}), std::to_string(n));
  EXPECT_FALSE(t->Render(Json::array()).ok());
}

TEST(ChatTemplate, AFolderHasItsTemplateAndItsTokensTexts) {
  const std::string folder = testing::TempDir();
  testing::WriteText(folder + "/config.json",
                     R"({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1,
                         "num_attention_heads": 2, "intermediate_size": 4, "rms_norm_eps": 1e-5,
                         "tie_word_embeddings": true})");
  testing::WriteSafetensors(folder + "/model.safetensors",
                            {testing::Counting("model.embed_tokens.weight", "F32", {3, 8}),
                             testing::Counting("model.norm.weight", "F32", {8})});
  testing::WriteText(folder + "/tokenizer_config.json",
                     R"({"bos_token": "<s>", "eos_token": {"content": "</s>"},
                         "chat_template": "{{ bos_token ~ eos_token ~ pad_token }}"})");
  const auto file = ModelFile::Open(folder);
  ASSERT_TRUE(file.ok()) << file.error().message;
  const auto model = ReadModelTemplate(**file, false);
  ASSERT_TRUE(model.ok()) << model.error().message;
  Json input = Json::object();
  AddTokenTexts(*model, &input);
  EXPECT_EQ(Shown(model->source, input), "<s></s>");
}

TEST(ChatTemplate, TheTimeIsFrozenOrNow) {
  EXPECT_EQ(
      Shown("{{ strftime_now('%H') }} {{ now is defined }}", Json{{"now", "2026-01-02T03:04:05"}}),
      "03 False");
  EXPECT_FALSE(Render("", Json{{"now", "yesterday"}}).ok());
  EXPECT_EQ(Render("{{ strftime_now('%Y-%m-%d') }}", Json::object())->size(), 10u);
}

// ---- hostile templates: refused within bounds, never a crash

std::string Repeat(const std::string& s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

TEST(HostileTemplates, AreRefused) {
  const std::vector<std::string> sources = {
      // time
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('a') }}",
      "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% set s = 'a' * 100000 %}{% for a in range(100000) %}{% set b = s|upper %}{% endfor %}",
      "{% set s = 'a' * 100000 %}{% for a in range(100000) %}{% if s == s ~ '' %}{% endif %}{% "
      "endfor %}",
      "{% set s = 'a' * 100000 %}{% for a in range(100000) %}{% if s.startswith(s) %}{% endif "
      "%}{% endfor %}",
      "{% set s = 'a' * 100000 %}{% set d = {s: 1} %}{% for a in range(100000) %}{{ d[s] }}{% "
      "endfor %}",
      "{% set s = 'a' * 100000 %}{% for a in range(100000) %}{% if 'b' in s %}{% endif %}{% "
      "endfor %}",
      "{% set s = 'a' * 100000 %}{% for a in range(100000) %}{% set x = s[1:] %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for a in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% "
      "endfor %}{{ ns.x|length == 2 and ns.x == ns.x[0] }}{{ ns.x }}",
      // memory
      "{{ 'x' * 1000000000 }}",
      "{{ [1] * 1000000000 }}",
      "{{ [[1] * 1000] * 1000000 }}",
      "{{ ('x' * 100000)|list * 100 }}",
      "{{ 'x'.center(10000000000) }}",
      "{{ 'x'.zfill(10 ** 12) }}",
      "{{ '%999999999999s' % 1 }}",
      "{{ '%.999999999f' % 1 }}",
      "{{ '{:>99999999999}'.format(1) }}",
      "{{ '{:.99999999f}'.format(1.0) }}",
      "{{ 'a\nb'|indent(10 ** 12) }}",
      "{{ [1]|tojson(indent=10 ** 12) }}",
      "{{ range(10 ** 9)|list }}",
      "{{ [1]|batch(10 ** 12, 0)|list }}",
      "{% set ns = namespace(s='aa') %}{% for a in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% "
      "endfor %}",
      "{% set ns = namespace(s='aa') %}{% for a in range(100) %}{% set ns.s = ns.s.replace('a', "
      "'aa') %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for a in range(100) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor %}",
      "{% set s = 'a' * 1000000 %}{{ s|replace('a', s) }}",
      "{% set s = 'a' * 1000000 %}{{ s.join(s) }}",
      "{% set s = '\\x01' * 10000000 %}{{ [s] }}",
      "{% set s = '<' * 10000000 %}{{ s|e }}",
      "{% set ns = namespace(x='', l=[]) %}{% for a in range(100000) %}{% set ns.l = [ns.l, 'x' * "
      "10000] %}{% endfor %}",
      // output
      "{% set s = 'a' * 1000000 %}{% for a in range(100) %}{{ s }}{% endfor %}",
      "{% macro f(n) %}{{ 'x' * 5000000 }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
      // depth, of source, of values and of iterators
      Repeat("{{ (", 10000),
      "{{ " + Repeat("(", 100000) + "1" + Repeat(")", 100000) + " }}",
      "{{ " + Repeat("[", 100000) + Repeat("]", 100000) + " }}",
      "{{ " + Repeat("-", 100000) + "1 }}",
      "{{ " + Repeat("not ", 100000) + "1 }}",
      "{{ " + Repeat("1 if 1 else ", 100000) + "1 }}",
      "{{ " + Repeat("{1:", 100000) + "1" + Repeat("}", 100000) + " }}",
      "{{ x" + Repeat("|trim", 100000) + " }}",
      "{{ x" + Repeat(".a", 100000) + " }}",
      "{{ x" + Repeat("[0", 100000) + Repeat("]", 100000) + " }}",
      "{{ x" + Repeat("(", 100000) + " }}",
      "{{ x is in " + Repeat("x is in ", 100000) + " }}",
      Repeat("{% if 1 %}", 100000) + Repeat("{% endif %}", 100000),
      Repeat("{% for a in [1] %}", 100000) + Repeat("{% endfor %}", 100000),
      Repeat("{% set x %}", 10000) + Repeat("{% endset %}", 10000),
      "{% for " + Repeat("(", 100000) + "a" + Repeat(")", 100000) + " in x %}{% endfor %}",
      "{% set ns = namespace(x=1) %}{% for a in range(100000) %}{% set ns.x = [ns.x] %}{% endfor "
      "%}{{ ns.x }}",
      "{% set ns = namespace(x=1) %}{% for a in range(100000) %}{% set ns.x = [ns.x] %}{% endfor "
      "%}{{ ns.x|tojson }}",
      "{% set ns = namespace(x=1, y=1) %}{% for a in range(100000) %}{% set ns.x = [ns.x] %}{% set "
      "ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
      "{% set ns = namespace(x=(1,)) %}{% for a in range(100000) %}{% set ns.x = (ns.x,) %}{% "
      "endfor %}{{ {ns.x: 1} }}",
      "{% set ns = namespace(x='ab') %}{% for a in range(100000) %}{% set ns.x = ns.x|map('upper') "
      "%}{% endfor %}{{ ns.x|list }}",
      "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
      "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}",
      // numbers
      "{{ 10 ** 100 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ -9223372036854775807 - 2 }}",
      "{{ 99999999999999999999 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ -(-9223372036854775807 - 1) }}",
      "{{ 3037000500 * 3037000500 }}",
      "{{ '99999999999999999999'|int }}",
      "{{ 1e300|int }}",
      "{{ (-9223372036854775807 - 1)|abs }}",
  };
  TemplateLimits limits;  // small, to be reached soon
  limits.steps = 2'000'000;
  limits.memory_bytes = 32 << 20;
  limits.output_bytes = 16 << 20;
  for (const std::string& source : sources) {
    const auto text = Render(source, Json{{"x", "a"}}, limits);
    ASSERT_FALSE(text.ok()) << source.substr(0, 200);
    EXPECT_EQ(text.error().code, Code::kBadInput);
    EXPECT_NE(text.error().message.find("line "), std::string::npos) << text.error().message;
    EXPECT_LT(text.error().message.size(), 4000u);
  }
}

TEST(HostileTemplates, WhatIsDeepOrLongYetHarmlessGoesThrough) {
  const Json x = {{"x", "a"}};
  EXPECT_EQ(Shown("{{ 0" + Repeat(" + 1", 20000) + " }}", x), "20000");
  EXPECT_EQ(Shown("{{ x" + Repeat(" ~ x", 20000) + " }}", x), std::string(20001, 'a'));
  EXPECT_EQ(Shown("{{ 0" + Repeat(" or 0", 20000) + " }}", x), "0");
  EXPECT_EQ(Shown("{{ x" + Repeat("|trim", 1000) + " }}", x), "a");
  EXPECT_EQ(Shown(Repeat("{% if 0 %}{% elif 0 %}", 1) + Repeat("{% elif 0 %}", 20000) +
                      "{% else %}e{% endif %}",
                  x),
            "e");
  EXPECT_EQ(Shown("{{ " + Repeat("(", 150) + "1" + Repeat(")", 150) + " }}", x), "1");
  // A list nested a hundred thousand deep is built and freed without recursion.
  EXPECT_EQ(Shown("{% set ns = namespace(x=1) %}{% for a in range(100000) %}{% set ns.x = [ns.x] "
                  "%}{% endfor %}{{ ns.x|length }}",
                  x),
            "1");
  EXPECT_EQ(Shown("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% else %}end{% endif %}{% endmacro "
                  "%}{{ f(150) }}",
                  x),
            "end");
  // Cycles through namespaces and macros go away with the rendering.
  EXPECT_EQ(Shown("{% set ns = namespace() %}{% set ns.x = ns %}{% macro f() %}{{ ns.y }}{% "
                  "endmacro %}{% set ns.f = f %}ok",
                  x),
            "ok");
  // Walking a long text by index is no quadratic work.
  EXPECT_EQ(
      Shown("{% set s = 'äb' * 20000 %}{% set ns = namespace(n=0) %}{% for i in range(40000) "
            "%}{% if s[i] == 'b' %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.n }}",
            x),
      "20000");
  EXPECT_EQ(Shown("{{ ('a' * 200000 ~ 'b') in ('a' * 400000) }} {{ ('a' * 400000).rfind('a' * "
                  "200000 ~ 'b') }}",
                  x),
            "False -1");
}

TEST(HostileTemplates, RecursionEndsBeforeTheStackDoes) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 512 << 10), 0);
  Result<std::string> text = std::string();
  const auto render = [](void* to) -> void* {
    *static_cast<Result<std::string>*>(to) =
        Render("{% macro f() %}{{ [f()] }}{% endmacro %}{{ f() }}", Json::object());
    return nullptr;
  };
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, render, &text), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  ASSERT_FALSE(text.ok());
  EXPECT_NE(text.error().message.find("levels deep"), std::string::npos) << text.error().message;
}

TEST(HostileTemplates, LimitsAreTheCallers) {
  TemplateLimits limits;
  limits.steps = 100;
  EXPECT_FALSE(Render("{% for i in range(200) %}{% endfor %}", Json::object(), limits).ok());
  limits = {};
  limits.output_bytes = 10;
  EXPECT_TRUE(Render("0123456789", Json::object(), limits).ok());
  EXPECT_FALSE(Render("0123456789x", Json::object(), limits).ok());
  limits = {};
  limits.memory_bytes = 20000;
  EXPECT_TRUE(Render("{{ 'x' * 100 }}", Json::object(), limits).ok());
  EXPECT_FALSE(Render("{{ 'x' * 30000 }}", Json::object(), limits).ok());
  EXPECT_FALSE(Render("{{ m }}", Json{{"m", std::string(30000, 'x')}}, limits).ok());
}

TEST(HostileTemplates, DeepInputIsRefused) {
  Json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = Json::array({deep});
  EXPECT_FALSE(Render("{{ m }}", Json{{"m", deep}}).ok());
  EXPECT_FALSE(Render("{{ m }}", Json{{"m", UINT64_MAX}}).ok());
  EXPECT_EQ(Shown("{{ m }}", Json{{"m", INT64_MIN}}), "-9223372036854775808");
}

// Nothing but a text or an error about the template.
void ExpectTextOrBadInput(const std::string& source, const Json& input) {
  const auto text = Render(source, input);
  if (text.ok()) return;
  EXPECT_EQ(text.error().code, Code::kBadInput) << source;
  EXPECT_FALSE(text.error().message.empty()) << source;
}

TEST(HostileTemplates, BrokenBytesDoNoHarm) {
  for (const std::string bad : {"\xff", "{{ '\xff\xc3' }}", "{{ \xff }}", "\xc3{{ x }}\xe2\x82",
                                "{{ '\xf0\x9f'|upper|length }}", "{{ '\xc3'[0]|tojson }}"}) {
    ExpectTextOrBadInput(bad, Json{{"x", "\xff\xfe"}});
  }
  // Every prefix of a real template, and every single byte of it gone.
  const std::string path = testing::GoldenPath("templates/Qwen-Qwen2.5-7B-Instruct.jinja");
  SNUG_NEED(path);
  const auto source = ReadWholeFile(path, 1 << 20);
  const Json input = {{"messages", {{{"role", "user"}, {"content", "x"}}}}};
  for (size_t i = 0; i < source->size(); ++i) {
    ExpectTextOrBadInput(source->substr(0, i), input);
    std::string less = *source;
    less.erase(i, 1);
    ExpectTextOrBadInput(less, input);
  }
}

}  // namespace
}  // namespace snug
