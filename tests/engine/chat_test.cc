// Conversations without a terminal: what is kept, what is computed again, what is refused.
#include "engine/chat.h"

#include <fstream>

#include "base/file.h"
#include "engine/think.h"
#include "engine_testing.h"

namespace snug {
namespace {

using testing::OpenOrFail;
using testing::TinyOptions;

constexpr char kTemplate[] =
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}";

EngineOptions Options() {
  EngineOptions o = TinyOptions("qwen2");
  o.logit_rows = 1;
  return o;
}

ChatOptions Greedy() {
  ChatOptions o;
  o.template_source = kTemplate;
  o.sampling.temperature = 0;
  o.max_tokens = 8;
  return o;
}

Chat CreateOrDie(const Engine& engine, const ChatOptions& options) {
  auto chat = Chat::Create(engine, options);
  EXPECT_TRUE(chat.ok()) << chat.error().message;
  return std::move(chat).value();
}

uint32_t NewTokens(const ChatTurn& turn) {
  return turn.generation.prompt_tokens - turn.generation.cached_tokens;
}

class ChatTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SNUG_NEED(Options().model_path);
    engine_ = OpenOrFail(Options());
    ASSERT_NE(engine_, nullptr);
  }
  std::unique_ptr<Engine> engine_;
};

TEST_F(ChatTest, LaterTurnsComputeOnlyWhatIsNew) {
  ChatOptions options = Greedy();
  options.system = "be brief and kind to everyone who asks";
  Chat chat = CreateOrDie(*engine_, options);
  const auto first = chat.Say(*engine_, "one two three", {});
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(first->generation.cached_tokens, 0u);
  EXPECT_FALSE(first->generation.tokens.empty());
  EXPECT_EQ(engine_->length(0),
            first->generation.prompt_tokens + first->generation.tokens.size() - 1);
  const auto second = chat.Say(*engine_, "four", {});
  ASSERT_TRUE(second.ok()) << second.error().message;
  // All of the first prompt; of the answer at least what tokenizes as it was generated.
  EXPECT_GE(second->generation.cached_tokens, first->generation.prompt_tokens - 1);
  EXPECT_LT(NewTokens(*second), second->generation.prompt_tokens / 2);
  EXPECT_EQ(chat.messages().size(), 5u);
}

TEST_F(ChatTest, AnswersDoNotDependOnWhatTheCacheHeld) {
  Chat chat = CreateOrDie(*engine_, Greedy());
  ASSERT_TRUE(chat.Say(*engine_, "one two three", {}).ok());
  const auto warm = chat.Say(*engine_, "four", {});
  ASSERT_TRUE(warm.ok());
  const std::string path = testing::TempDir() + "/chat.json";
  ASSERT_TRUE(chat.Save(path).ok());

  auto other = OpenOrFail(Options());
  Chat again = CreateOrDie(*other, Greedy());
  ASSERT_TRUE(again.Load(path).ok());
  EXPECT_EQ(again.messages(), chat.messages());
  const auto a = chat.Say(*engine_, "five", {});
  const auto b = again.Say(*other, "five", {});
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->generation.tokens, b->generation.tokens);
  EXPECT_GT(a->generation.cached_tokens, 0u);
  EXPECT_EQ(b->generation.cached_tokens, 0u);
}

TEST_F(ChatTest, OverflowIsRefusedWithNumbersAndNothingLost) {
  Chat chat = CreateOrDie(*engine_, Greedy());
  ASSERT_TRUE(chat.Say(*engine_, "short", {}).ok());
  const Json before = chat.messages();
  std::string text;
  for (int i = 0; i < 300; ++i) text += " word";
  const auto refused = chat.Say(*engine_, text, {});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kDoesNotFit);
  EXPECT_NE(refused.error().message.find("256"), std::string::npos) << refused.error().message;
  EXPECT_NE(refused.error().next.find("/clear"), std::string::npos);
  EXPECT_EQ(chat.messages(), before);
  EXPECT_TRUE(chat.Say(*engine_, "go on", {}).ok());
}

TEST_F(ChatTest, WithoutALimitAnAnswerTakesWhatTheContextLeaves) {
  ChatOptions options = Greedy();
  options.max_tokens = 0;
  Chat chat = CreateOrDie(*engine_, options);
  const auto turn = chat.Say(*engine_, "hello", {});
  ASSERT_TRUE(turn.ok()) << turn.error().message;
  EXPECT_LE(turn->generation.prompt_tokens + turn->generation.tokens.size(), 256u);
  if (turn->generation.finish_reason == "length") {
    EXPECT_EQ(turn->generation.prompt_tokens + turn->generation.tokens.size(), 256u);
    EXPECT_FALSE(chat.Say(*engine_, "more", {}).ok());
    chat.Clear();
    EXPECT_TRUE(chat.Say(*engine_, "hello", {}).ok());
  }
}

TEST_F(ChatTest, ACancelledAnswerStaysWithWhatThereIs) {
  ChatOptions options = Greedy();
  options.max_tokens = 100;
  Chat chat = CreateOrDie(*engine_, options);
  std::atomic<bool> cancel{false};
  int pieces = 0;
  TurnOptions turn;
  turn.cancel = &cancel;
  turn.on_text = [&](TextKind, std::string_view) { cancel = ++pieces == 3; };
  const auto stopped = chat.Say(*engine_, "tell me everything", turn);
  ASSERT_TRUE(stopped.ok());
  if (stopped->generation.finish_reason == "cancelled") {
    EXPECT_LT(stopped->generation.tokens.size(), 100u);
    EXPECT_EQ(chat.messages().size(), 2u);
    EXPECT_EQ(chat.messages()[1]["content"], stopped->content);
  }
  // Cancelled before the first token, the message is dropped.
  cancel = true;
  std::string text;
  for (int i = 0; i < 40; ++i) text += " word";
  const size_t messages = chat.messages().size();
  turn.on_text = nullptr;
  const auto nothing = chat.Say(*engine_, text, turn);
  ASSERT_TRUE(nothing.ok());
  EXPECT_EQ(nothing->generation.finish_reason, "cancelled");
  EXPECT_EQ(chat.messages().size(), messages);
}

TEST_F(ChatTest, SystemMessageAndClear) {
  Chat chat = CreateOrDie(*engine_, Greedy());
  EXPECT_EQ(chat.messages().size(), 0u);
  chat.SetSystem("speak softly");
  ASSERT_TRUE(chat.Say(*engine_, "hi", {}).ok());
  EXPECT_EQ(chat.messages()[0]["role"], "system");
  EXPECT_EQ(chat.messages()[0]["content"], "speak softly");
  chat.Clear();
  EXPECT_EQ(chat.messages().size(), 1u);
  chat.SetSystem("");
  EXPECT_EQ(chat.messages().size(), 0u);
}

TEST_F(ChatTest, LoadNamesWhatIsWrongAndChangesNothing) {
  Chat chat = CreateOrDie(*engine_, Greedy());
  ASSERT_TRUE(chat.Say(*engine_, "hi", {}).ok());
  const Json before = chat.messages();
  const std::string path = testing::TempDir() + "/bad.json";
  for (const char* bad :
       {"", "{", "{}", "[1]", R"([{"role": "user"}])", R"([{"role": "elf", "content": "x"}])",
        R"([{"role": "user", "content": ["x"]}])", R"({"messages": 3})",
        R"([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}])"}) {
    std::ofstream(path) << bad;
    const Status s = chat.Load(path);
    ASSERT_FALSE(s.ok()) << bad;
    EXPECT_EQ(s.error().code, Code::kBadInput) << bad;
    EXPECT_NE(s.error().message.find(path), std::string::npos) << s.error().message;
  }
  EXPECT_FALSE(chat.Load(path + ".absent").ok());
  EXPECT_EQ(chat.messages(), before);
  EXPECT_FALSE(chat.Save("/nonexistent/chat.json").ok());
  std::ofstream(path)
      << R"([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])";
  ASSERT_TRUE(chat.Load(path).ok());
  EXPECT_EQ(chat.system(), "s");
  EXPECT_EQ(chat.messages().size(), 2u);
}

TEST_F(ChatTest, TemplatesAreReadAtTheStartAndMayRefuse) {
  ChatOptions options = Greedy();
  options.template_source = "{% for %}";
  auto broken = Chat::Create(*engine_, options);
  ASSERT_FALSE(broken.ok());
  EXPECT_EQ(broken.error().code, Code::kBadInput);
  options.template_source = "{{ raise_exception('no system here') }}";
  Chat refusing = CreateOrDie(*engine_, options);
  const auto turn = refusing.Say(*engine_, "hi", {});
  ASSERT_FALSE(turn.ok());
  EXPECT_NE(turn.error().message.find("no system here"), std::string::npos);
  EXPECT_EQ(refusing.messages().size(), 0u);
}

struct Split {
  std::string thinking, answer;
};

Split SplitBy(std::string_view text, size_t piece, bool inside) {
  ThinkSplitter splitter(inside);
  Split out;
  const auto sink = [&](TextKind kind, std::string_view t) {
    EXPECT_FALSE(t.empty());
    (kind == TextKind::kThinking ? out.thinking : out.answer) += t;
  };
  for (size_t i = 0; i < text.size(); i += piece) splitter.Push(text.substr(i, piece), sink);
  splitter.Finish(sink);
  return out;
}

TEST(ThinkSplitter, SplitsWhereverThePiecesEnd) {
  struct Case {
    const char* text;
    bool inside;
    const char *thinking, *answer;
  };
  for (const Case& c : {
           Case{"plain <think> is a tag", false, "", "plain <think> is a tag"},
           {"  leading space stays", false, "", "  leading space stays"},
           {"<think>\nhm, a < b\n\n so\n</think>\n\nYes.\n", false, "hm, a < b\n\n so", "Yes.\n"},
           {"\n<think></think>\n\nNo", false, "", "No"},
           {"still here </thin not yet</think> done", true, "still here </thin not yet", "done"},
           {"<think>never ends </thi", false, "never ends </thi", ""},
           {"<thin", false, "", "<thin"},
           {" \n", false, "", " \n"},
           {"<think>a</think>b</think><think>c", false, "a", "b</think><think>c"},
       }) {
    for (size_t piece = 1; piece <= 40; ++piece) {
      const Split s = SplitBy(c.text, piece, c.inside);
      EXPECT_EQ(s.thinking, c.thinking) << c.text << " by " << piece;
      EXPECT_EQ(s.answer, c.answer) << c.text << " by " << piece;
    }
  }
  EXPECT_TRUE(ThinkSplitter::EndsInside("<|assistant|><think>\n"));
  EXPECT_FALSE(ThinkSplitter::EndsInside("<think>\n\n</think>\n\n"));
  EXPECT_FALSE(ThinkSplitter::EndsInside(""));
}

}  // namespace
}  // namespace snug
